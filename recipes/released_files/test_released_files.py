"""Regression against large released files, which this repository does not ship.

    python -m pytest recipes/released_files --released DIR

DIR holds samples cut from github.com/longmalongma/TW-GRPO, commit aa529ff: NExT-GQA's validation questions and the
authors' inverted ones (data/evaluation), and rows of their evaluation logs with the questions in them. The questions
are other people's, and their terms forbid shipping them.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from verl_twgrpo.data.audit import audit, chi_square
from verl_twgrpo.data.convert import convert
from verl_twgrpo.data.inversion import invert_all
from verl_twgrpo.data.negation import CannotNegate, count_negations, negate, negate_as_published
from verl_twgrpo.data.schema import Item
from verl_twgrpo.rewards import validate
from verl_twgrpo.rewards.scoring import check_gold


def rows_of(path: Path) -> list[dict]:
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def test_all_real_questions_are_negated_once_or_refused(released):
    questions = [row["question"] for row in json.loads((released / "nextgqa_val_200.json").read_text())]
    reasons = {}
    for question in questions:
        try:
            negated = negate(question)
        except CannotNegate as refusal:
            reasons[question] = str(refusal)
        else:
            assert negated != question and count_negations(negated) == 1
    # 51 of the 200 were chosen to be hard; most of what is refused is negative already
    assert len(reasons) <= 24
    assert sum(reason == "negative already" for reason in reasons.values()) >= len(reasons) * 0.7


def test_the_published_rules_give_the_published_questions(released):
    originals = {row["id"]: row for row in json.loads((released / "nextgqa_val_200.json").read_text())}
    published = json.loads((released / "nextgqa_mixed_published.json").read_text())
    negated = [row for row in published if row["is_negated"]]
    assert len(negated) > 30
    for row in negated:
        assert negate_as_published(originals[row["id"]]["question"], "nextgqa") == row["question"]


def real_items(released) -> list[Item]:
    rows = json.loads((released / "nextgqa_val_200.json").read_text())
    return [
        Item(
            id=row["id"],
            source="nextgqa",
            split="validation",
            question=row["question"],
            options=tuple(option[4:].strip() for option in row["options"]),
            answers=frozenset(row["answer"][1]),
            video=row["video"],
        )
        for row in rows
    ]


def test_real_items_have_no_unchanged_question_and_no_double_negation(released):
    items = real_items(released)
    for seed in range(10):
        report = audit(invert_all(items, seed=seed))
        assert report["items"] == 200 and 60 < report["inverted"] < 130
        assert report["inverted_with_unchanged_question"] == 0
        assert report["double_negations"] == []
        assert len(report["examples"]) == 20
        assert {"id": "5256928210_7", "repeated": ["scarf"]} in report["near_duplicate_options"]


def test_paper_compatible_distributions_match_the_published_file(released):
    published = json.loads((released / "nextgqa_mixed_published.json").read_text())
    ids = {row["id"] for row in published}
    items = [item for item in real_items(released) if item.id in ids]
    theirs = Counter((row["is_negated"], len(row["options"]), row["answer"].count("(")) for row in published)
    ours = Counter()
    for seed in range(50):
        for outcome in invert_all(items, seed=seed, paper_compatible=True):
            ours[(outcome.after.negated, len(outcome.after.options), len(outcome.after.answers))] += 1
    assert set(ours) == set(theirs)
    assert chi_square([theirs, ours])[1] > 0.01
    assert abs(sum(n for (negated, *_), n in ours.items() if negated) / ours.total() - 0.5) < 0.03


# real files: what they hold, and that every gold answer scores


def make_videos(folder: Path, names) -> Path:
    for name in names:
        path = folder / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_real_nextgqa_file_converts_whole(released, tmp_path):
    path = released / "nextgqa_val_200.json"
    rows = rows_of(path)
    folder = make_videos(tmp_path / "v", [row["video"] for row in rows])
    items = convert("nextgqa", str(path), folder).items
    assert len(items) == 200 and validate(items) == 200
    for row, item in zip(rows, items, strict=True):
        letter = row["answer"][1]
        assert f"({letter}) {item.options[ord(letter) - 65]}" == row["options"][ord(letter) - 65].strip()
        assert item.provenance["glue"] == row["glue"] and item.question_type == row["type"]


@pytest.mark.parametrize(
    ("source", "name", "count"),
    [
        ("mvbench", "mvbench_clevrer_counterfactual.jsonl", 45),
        ("mvbench", "mvbench_zeroshot.jsonl", 100),
        ("mmvu", "mmvu_twgrpo_ckpt500.jsonl", 100),
        ("videomme", "videomme_zeroshot.jsonl", 100),
        ("nextgqa", "nextgqa_test_zeroshot.jsonl", 100),
    ],
)
def test_real_released_files_convert_whole(source, name, count, released, tmp_path):
    rows = rows_of(released / name)
    rows = [row["question"] if isinstance(row.get("question"), dict) else row for row in rows]
    folder = make_videos(tmp_path / "v", [row["video"] for row in rows])
    result = convert(source, str(released / name), folder)
    assert len(result.items) == count and validate(result.items) == count
    by_id = {item.id: item for item in result.items}
    for row in rows:
        item = by_id[str(row.get("id") or row.get("question_id") or row["problem_id"])]
        assert f"<answer>{item.ground_truth}</answer>" == row["solution"]
        assert item.question == row["problem"].strip()
        lettered = [f"{letter}. {option}" for letter, option in zip(item.letters, item.options, strict=True)]
        assert lettered == [option.strip() for option in row["options"]]


def test_questions_that_a_released_log_holds_twice_are_taken_once_and_counted(released, tmp_path):
    rows = [row["question"] for row in rows_of(released / "videomme_zeroshot.jsonl")]
    folder = make_videos(tmp_path / "v", [row["video"] for row in rows])
    result = convert("videomme", str(released / "videomme_zeroshot.jsonl"), folder)
    assert result.counts == {"repeated question": 11}


def test_real_solutions_of_the_fixtures_pass_as_gold(released):
    import json

    rows = json.loads((released / "nextgqa_mixed_published.json").read_text(encoding="utf-8"))
    for row in rows:
        check_gold("nextgqa", row["solution"], {"id": row["id"], "options": row["options"]})
    assert len(rows) == 80
