"""Sources of other tasks than multiple choice: what their schemas become, and that it survives the parquet file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from verl_twgrpo.data.convert import convert
from verl_twgrpo.data.inversion import invert
from verl_twgrpo.data.parquet import FrameLimits, from_row, read_parquet, read_rows, to_row, write_parquet, write_rows
from verl_twgrpo.data.prompts import PROMPTS, messages, prompt_name
from verl_twgrpo.data.schema import Item
from verl_twgrpo.rewards import TASKS, check_gold

ANNOTATIONS = Path(__file__).parent / "annotations"
FILES = {
    "nextgqa_grounding": ["nextgqa_grounding.json"],
    "charades_sta": ["charades_sta_official.txt", "charades_sta.json"],
    "activitynet_captions": ["activitynet_captions.json"],
    "video_r1": ["video_r1.json"],
}


@pytest.fixture
def videos(tmp_path) -> Path:
    folder = tmp_path / "videos"
    names = "0001/1000001.mp4 0001/1000002.mp4 AO8RW.mp4 3MSZA.mp4 v_aaaaaaaaaaa.mp4 LLaVA-Video-178K/one.mp4 "
    for name in (names + "CLEVRER/two.mp4 OCR/three.mp4 VSI/four.mp4 Math/x.png").split():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def converted(source, name, videos):
    return convert(source, str(ANNOTATIONS / name), videos)


def test_nextgqa_keeps_letters_and_times_and_leaves_out_questions_without_times(videos):
    result = converted("nextgqa_grounding", "nextgqa_grounding.json", videos)
    (item,) = result.items
    assert (item.task, item.options[2], item.question_type) == ("grounded_qa", "jump", "TN")
    assert json.loads(item.truth) == {"letters": "C", "intervals": [[2.0, 6.5], [11, 12.4]], "duration": 30}
    assert result.left_out == [("1000002_0", "no times")]


def test_charades_in_both_its_forms(videos):
    official = converted("charades_sta", "charades_sta_official.txt", videos)
    assert [json.loads(item.truth) for item in official.items] == [
        {"intervals": [[0.0, 6.9]], "duration": None},
        {"intervals": [[24.3, 30.4]], "duration": None},
    ]
    assert official.counts == {"times that are no interval of the video": 1}
    (item,) = converted("charades_sta", "charades_sta.json", videos).items
    assert json.loads(item.truth)["duration"] == 30.96
    assert item.question == 'When does the following happen in the video? "person turn a light on."'


def test_activitynet_gives_an_item_for_every_sentence_inside_the_video(videos):
    result = converted("activitynet_captions", "activitynet_captions.json", videos)
    assert [json.loads(item.truth)["intervals"] for item in result.items] == [[[0.83, 19.86]], [[17.37, 83.2]]]
    assert len({item.id for item in result.items}) == 2
    assert result.counts == {"times that are no interval of the video": 1}


def test_video_r1_gives_its_tasks_on_videos_and_images_and_lists_unreadable_solutions(videos):
    result = converted("video_r1", "video_r1.json", videos)
    assert {item.id: (item.task, item.ground_truth) for item in result.items} == {
        "1": ("multiple_choice", "B"),
        "2": ("numeric", "3"),
        "3": ("ocr", "No entry"),
        "4": ("open_ended", "A dog runs."),
        "5": ("regression", "2.5"),
        "6": ("numeric", "7"),
        "8": ("multiple_choice", "A"),
    }
    assert result.counts == {"a solution that no numerical answer can equal": 1}
    shown = {item.id: (bool(item.video), item.image.rpartition("/")[2]) for item in result.items}
    assert shown["5"] == (True, "") and shown["6"] == shown["8"] == (False, "x.png")


@pytest.mark.parametrize(
    ("source", "rows", "message"),
    [
        ("charades_sta", [{"line": "AO8RW 0.0 6.9 no mark"}], "line: need 'VIDEO START END##SENTENCE'"),
        ("charades_sta", [{"line": "AO8RW a b##x"}], r"timestamps: need \[start, end\]"),
        ("activitynet_captions", {"v": {"timestamps": [[0, 1]], "sentences": []}}, "v: timestamps and sentences"),
        ("activitynet_captions", {"v": {"timestamps": [[0]], "sentences": ["x"]}}, r"timestamps: need \[start, end\]"),
        (
            "video_r1",
            [{"problem_id": 1, "data_type": "video", "problem_type": "essay"}],
            "problem_type: 'essay' is none of multiple choice, numerical",
        ),
        ("video_r1", [{"problem_id": 1, "data_type": "audio"}], "data_type: 'audio' is neither video nor image"),
    ],
)
def test_rows_that_do_not_fit_are_named(source, rows, message, videos, tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(ValueError, match=f"row 0: .*{message}"):
        convert(source, str(path), videos, strict=True)


@pytest.mark.parametrize(("source", "name"), [(source, name) for source, names in FILES.items() for name in names])
def test_every_item_survives_the_parquet_file_and_its_gold_answer_scores_in_full(source, name, videos, tmp_path):
    items = converted(source, name, videos).items
    path = write_parquet(items, tmp_path / "items.parquet")
    assert read_parquet(path) == items
    for row, item in zip(read_rows(path), items, strict=True):
        assert row["extra_info"]["task"] == item.task
        check_gold(row["data_source"], row["reward_model"]["ground_truth"], row["extra_info"])
        (message,) = row["prompt"]
        assert item.question in message["content"] and "<answer>" in message["content"]
        assert message["content"].startswith("<image>" if item.image else "<video>")
        assert (len(row["videos"]), len(row.get("images") or ())) == ((0, 1) if item.image else (1, 0))


def item(**changes):
    fields = {"id": "q1", "source": "star", "split": "train", "question": "What?", "video": "v.mp4", "options": ()}
    return Item(**fields | {"answers": frozenset(), "task": "counting", "truth": "7"} | changes)


def test_every_task_has_a_prompt():
    for task in TASKS:
        if task != "multiple_choice":
            assert prompt_name(item(task=task)) == task and task in PROMPTS
    assert prompt_name(item(task="a_users_own")) == "open_ended"
    assert messages(item())[0]["content"].startswith("<video>What?\nOutput the thinking")
    assert "\nA yes\nB no\nOutput" in messages(item(task="grounded_qa", options=("yes", "no")))[0]["content"]


def test_truths_of_other_tasks_are_asked_for():
    for changes, message in (
        ({"truth": " "}, "task counting needs a truth"),
        ({"answers": frozenset("A")}, "its letters in truth, not in answers"),
        ({"task": ""}, "task is empty"),
        ({"task": "multiple_choice", "options": ("a",), "answers": frozenset("A")}, "truth belongs to other tasks"),
        ({"task": "multiple_choice", "truth": ""}, "0 options"),
    ):
        with pytest.raises(ValueError, match=f"^star: item q1: .*{message}"):
            item(**changes)


def test_only_multiple_choice_can_be_inverted():
    with pytest.raises(ValueError, match="star: item q1: its task is counting; only multiple choice"):
        invert(item())


def test_rows_of_an_earlier_version_have_no_task_and_are_multiple_choice(tmp_path):
    letters = item(task="multiple_choice", truth="", options=("a", "b"), answers=frozenset("B"))
    row = to_row(letters, 0, FrameLimits())
    assert from_row(row) == replace(letters, video=row["videos"][0]["video"])
    del row["extra_info"]["task"]
    assert from_row(row).task == "multiple_choice"
    assert read_rows(write_rows([row], tmp_path / "x.parquet"))[0]["extra_info"]["task"] == "multiple_choice"


OWN = [
    {"question": "When does it fall?", "task": "temporal_grounding", "truth": {"intervals": [[1, 2]], "duration": 9}},
    {"question": "How many?", "task": "counting", "truth": 7},
    {"question": "Does it fall?", "task": "boolean", "truth": True},
    {"question": "Order?", "task": "ordering", "truth": ["a", "c", "b"]},
    {"question": "How far?", "task": "regression", "truth": 2.5},
    {"question": "What is written?", "task": "ocr", "truth": "No entry"},
    {
        "question": "Why, and when?",
        "task": "grounded_qa",
        "options": ["tired", "bored"],
        "truth": {"letters": "B", "intervals": [[1, 2]]},
    },
    {"question": "Which?", "options": ["a", "b"], "answer": "B"},
]


def own_rows(tmp_path, rows):
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps({"video": "3MSZA.mp4"} | row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_questions_of_ones_own_of_any_task(videos, tmp_path):
    items = convert("jsonl", own_rows(tmp_path, OWN), videos).items
    assert [item.task for item in items] == [row.get("task", "multiple_choice") for row in OWN]
    assert read_parquet(write_parquet(items, tmp_path / "own.parquet")) == items


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "counting"}, "truth: ground truth is 'null', need an integer"),
        ({"task": "counting", "truth": 7, "answer": "7"}, "answer: the task counting has its truth in 'truth'"),
        ({"options": ["a"], "answer": "A", "truth": "A"}, "truth: the task multiple_choice has its truth in 'answer'"),
        (
            {"task": "temporal_grounding", "truth": {"intervals": [[2, 1]]}},
            r"truth: interval \[2, 1\] needs 0 <=",
        ),
        (
            {"task": "grounded_qa", "options": ["a"], "truth": {"letters": "C", "intervals": [[1, 2]]}},
            "truth: ground truth C is not among the options A",
        ),
        ({"task": "segmentation", "truth": 7}, "task: 'segmentation', need one of boolean, counting"),
    ],
)
def test_a_slip_in_ones_own_questions_is_named_with_its_row(changes, message, videos, tmp_path):
    with pytest.raises(ValueError, match=f"row 1: .*{message}"):
        convert("jsonl", own_rows(tmp_path, [OWN[1], {"question": "What?"} | changes]), videos, strict=True)
