"""Each source maps its documented raw schema to items, and refuses what does not fit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from verl_twgrpo.data.convert import convert
from verl_twgrpo.data.parquet import read_rows, write_parquet
from verl_twgrpo.data.prompts import PROMPTS
from verl_twgrpo.data.sources import SOURCES, fields
from verl_twgrpo.rewards import check_gold

ANNOTATIONS = Path(__file__).parent / "annotations"


def rows_of(path: Path) -> list[dict]:
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


@pytest.fixture
def videos(tmp_path) -> Path:
    """A folder with every video that the hand-made annotations name; their content does not matter here."""
    folder = tmp_path / "videos"
    names = "video_train/video_00000-01000/video_00000.mp4 video_train/video_00000-01000/video_00001.mp4 1000001.mp4 "
    names += "0001/1000002.mp4 6H78U.mp4 Art/2.mp4 Art/3.mp4 video_10009.mp4 ZS9XR.mp4 1021488277.mp4 abcdefghijk.mp4"
    for name in names.split():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def converted(source: str, name: str, videos: Path):
    return convert(source, str(ANNOTATIONS / name), videos)


def test_every_source_has_a_prompt_and_every_prompt_a_source_of_its_text():
    assert {source.prompt for source in SOURCES.values()} <= set(PROMPTS)
    assert all(name == source.name for name, source in SOURCES.items())
    assert all(prompt.origin for prompt in PROMPTS.values())


def test_official_clevrer_gives_counterfactual_questions_with_all_their_true_choices(videos):
    result = converted("clevrer", "clevrer_official.json", videos)
    assert [(item.id, item.ground_truth) for item in result.items] == [("0_4", "B,C"), ("1_11", "A,B")]
    assert result.items[0].question == "If the gray cube is removed, what will not happen?"
    assert result.items[0].options[1] == "The green ball collides with the purple cube"
    assert result.items[0].question_type == "counterfactual"
    assert result.items[0].video.endswith("video_00000-01000/video_00000.mp4")


def test_official_clevrer_questions_without_a_true_choice_are_dropped_and_counted(videos):
    result = converted("clevrer", "clevrer_official.json", videos)
    assert result.counts == {"no choice is correct": 1, "question_type descriptive": 1, "question_type explanatory": 1}
    assert result.left_out == [("0_5", "no choice is correct")]


def test_released_clevrer_gives_question_and_options_apart(videos):
    result = converted("clevrer", "clevrer_released.json", videos)
    (item,) = result.items
    assert item.question == "Without the gray cube, what will happen?"
    assert item.options[2] == "The green ball and the brown cylinder collide"
    assert item.ground_truth == "A,C"
    assert result.counts == {"no choice is correct": 1}


def test_released_clevrer_ids_do_not_depend_on_the_order_of_rows(videos, tmp_path):
    rows = rows_of(ANNOTATIONS / "clevrer_released.json")
    (tmp_path / "turned.json").write_text(json.dumps(rows[::-1]), encoding="utf-8")
    (item,) = convert("clevrer", str(tmp_path / "turned.json"), videos).items
    assert item.id == converted("clevrer", "clevrer_released.json", videos).items[0].id


@pytest.mark.parametrize(
    ("source", "name", "expected"),
    [
        ("nextgqa", "nextqa_official.jsonl", [("1000001_4", "C", "TN"), ("1000002_0", "B", "CW")]),
        ("star", "star_official.json", [("Interaction_T1_13", "C", "Interaction")]),
        ("star", "star_video_r1.json", [("4410", "C", "")]),
        ("star", "star_released.json", [("4410", "C", "")]),
        ("mmvu", "mmvu_official.jsonl", [("validation_0", "B", "Art")]),
        ("videomme", "videomme_official.jsonl", [("001-1", "C", "Counting Problem")]),
        (
            "tinyllava_nextqa",
            "tinyllava_nextqa.jsonl",
            [("1000001-41e53ac6739d", "C", ""), ("1000002-d36b2f8385d8", "B", "")],
        ),
    ],
)
def test_documented_schema_gives_items(source, name, expected, videos):
    items = converted(source, name, videos).items
    assert [(item.id, item.ground_truth, item.question_type) for item in items] == expected
    assert all(item.source == source and len(item.video_digest) == 64 for item in items)


# source -> its annotation files here; those of other tasks are in test_task_sources.py, jsonl in test_own_sources.py
FILES = {
    "clevrer": ["clevrer_official.json", "clevrer_released.json"],
    "mmvu": ["mmvu_official.jsonl"],
    "mvbench": ["mvbench_official.json"],
    "nextgqa": ["nextqa_official.jsonl"],
    "star": ["star_official.json", "star_released.json", "star_video_r1.json"],
    "tempcompass": ["tempcompass_official.json", "tempcompass_rows.jsonl"],
    "tinyllava_nextqa": ["tinyllava_nextqa.jsonl"],
    "videomme": ["videomme_official.jsonl"],
}
ELSEWHERE = {"activitynet_captions", "charades_sta", "nextgqa_grounding", "video_r1", "jsonl"}


def test_no_source_is_forgotten():
    assert set(FILES) | ELSEWHERE == set(SOURCES)


@pytest.mark.parametrize(("source", "name"), [(source, name) for source, names in FILES.items() for name in names])
def test_the_gold_answer_of_every_item_scores_in_full(source, name, videos, tmp_path):
    items = converted(source, name, videos).items
    rows = read_rows(write_parquet(items, tmp_path / "items.parquet"))
    assert len(rows) == len(items) > 0
    for row in rows:
        check_gold(row["data_source"], row["reward_model"]["ground_truth"], row["extra_info"])


def test_official_mvbench_takes_the_answer_by_its_text(videos):
    items = converted("mvbench", "mvbench_official.json", videos).items
    assert [item.ground_truth for item in items] == ["B", "A"]
    assert items[0].options == ("yes", "no", "not sure")
    assert items[1].provenance["start"] == 11.1


def test_official_tempcompass_and_its_hub_rows_give_the_same_item(videos):
    official = converted("tempcompass", "tempcompass_official.json", videos).items
    (row,) = converted("tempcompass", "tempcompass_rows.jsonl", videos).items
    assert [item.question_type for item in official] == ["action", "speed"]
    assert (official[0].id, official[0].options, official[0].ground_truth) == (row.id, row.options, row.ground_truth)
    assert row.question == "What is the person doing?" and row.options == ("pouring", "stirring", "drinking")


def test_open_ended_mmvu_questions_are_left_out_with_their_reason(videos):
    result = converted("mmvu", "mmvu_official.jsonl", videos)
    assert result.left_out == [("validation_1", "question_type 'open-ended' has no options")]


def test_star_forms_agree_on_the_question(videos):
    first = converted("star", "star_video_r1.json", videos).items[0]
    second = converted("star", "star_released.json", videos).items[0]
    assert (first.question, first.options, first.answers) == (second.question, second.options, second.answers)


# what does not fit


def corrupted(tmp_path, source_file: str, change) -> str:
    rows = rows_of(ANNOTATIONS / source_file)
    change(rows)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("source", "name", "change", "message"),
    [
        ("clevrer", "clevrer_official.json", lambda rows: rows[1].pop("scene_index"), "row 1: scene_index"),
        (
            "clevrer",
            "clevrer_official.json",
            lambda rows: rows[0]["questions"][2]["choices"][0].update(answer="maybe"),
            "row 0: question_id 4: choices: answer: .*maybe",
        ),
        (
            "clevrer",
            "clevrer_official.json",
            lambda rows: rows[1]["questions"][0].update(choices=[]),
            "row 1: question_id 11: choices",
        ),
        ("clevrer", "clevrer_released.json", lambda rows: rows[0].update(problem="What?"), "row 0: problem: .*lines A"),
        ("clevrer", "clevrer_released.json", lambda rows: rows[0].update(solution="A and C"), "row 0: solution"),
        ("nextgqa", "nextqa_official.jsonl", lambda rows: rows[1].update(answer="swam"), "row 1: answer: 'swam' is 0"),
        ("star", "star_official.json", lambda rows: rows[0].update(choices="The table"), "row 0: choices"),
        ("star", "star_released.json", lambda rows: rows[0].update(options="AB"), "row 0: options"),
        ("mmvu", "mmvu_official.jsonl", lambda rows: rows[0]["choices"].pop("B"), "row 0: choices"),
        ("mmvu", "mmvu_official.jsonl", lambda rows: rows[0].update(answer="F"), "row 0: .*answer F is not among"),
        ("mvbench", "mvbench_official.json", lambda rows: rows[0].update(question="  "), "row 0: question is empty"),
        (
            "tempcompass",
            "tempcompass_official.json",
            lambda rows: rows["1021488277"]["speed"][0].update(answer="C. still"),
            "row 0: answer: 'C. still'",
        ),
        (
            "videomme",
            "videomme_official.jsonl",
            lambda rows: rows[0].update(options=["A. x", "C. y"]),
            "row 0: options: .*lettered A,C",
        ),
    ],
)
def test_rows_outside_the_schema_are_refused_naming_file_row_and_field(source, name, change, message, videos, tmp_path):
    path = corrupted(tmp_path, name, change)
    with pytest.raises(ValueError, match=rf"bad\.json: {message}"):
        convert(source, path, videos, strict=True)
    try:
        converted = convert(source, path, videos)
    except ValueError as error:  # nothing else is in the file
        assert re.search(message, str(error))
    else:
        assert any(re.search(message, f"{where}: {reason}") for where, reason in converted.left_out)


def test_two_different_questions_of_one_id_are_refused_naming_both_rows(videos, tmp_path):
    path = corrupted(tmp_path, "star_released.json", lambda rows: rows.append({**rows[0], "question": "Why?"}))
    with pytest.raises(ValueError, match=r"row 1: id 4410 is another question in .*row 0"):
        convert("star", path, videos, strict=True)


def test_the_unlabelled_test_split_of_clevrer_is_refused(videos, tmp_path):
    def strip(rows):
        for choice in rows[0]["questions"][2]["choices"]:
            del choice["answer"]

    with pytest.raises(ValueError, match="need correct or wrong, got None"):
        convert("clevrer", corrupted(tmp_path, "clevrer_official.json", strip), videos, strict=True)


def test_an_unknown_source_is_refused_naming_the_known_ones(videos):
    with pytest.raises(ValueError, match="clever: unknown source; known: .*clevrer, jsonl, mmvu"):
        convert("clever", "x.json", videos)


@pytest.mark.parametrize("row", [{"question": "Why \ud83d?"}, {"question": "Why?", "options": ["run", "\udc00"]}])
def test_half_a_character_is_refused_by_its_field(row):
    with pytest.raises(ValueError, match=r"^(question|options): \\u(d83d|dc00) is half a character"):
        fields.text(row, "question")
        fields.options(row)
