"""The table of known hacks in docs/reward_hacks.md, row by row: what is documented is what is scored."""

from __future__ import annotations

from pathlib import Path

import pytest

from verl_twgrpo.bench import reward as bench
from verl_twgrpo.rewards import TASKS, compute_score, parse_answer, score

DOCUMENT = Path(__file__).parents[2] / "docs" / "reward_hacks.md"


def part(title: str) -> str:
    """A section of the document."""
    return DOCUMENT.read_text(encoding="utf-8").partition(title)[2].partition("\n## ")[0]


def table_rows() -> list[tuple[str, str, list[float]]]:
    """(trick, response, [accuracy, soft accuracy, format, strict format]) of each row."""
    lines = [line for line in part("## Multiple choice").splitlines() if line.startswith("| ")]
    rows = []
    for line in lines[1:]:
        trick, response, *scores = (cell.strip() for cell in line.strip("|").split("|"))
        rows.append((trick, response.strip("`").replace("\\n", "\n"), [float(score) for score in scores]))
    return rows


@pytest.mark.parametrize(
    ("trick", "response", "scores"), table_rows(), ids=lambda value: value if len(value) < 60 else ""
)
def test_a_documented_hack_scores_as_documented(trick, response, scores):
    info = {"id": trick, "options": ["a", "b", "c", "d"]}
    released = compute_score("hacks", response, "A,C", info)
    strict = compute_score("hacks", response, "A,C", info, strict_format=True)
    assert [released["accuracy"], released["soft_accuracy"], released["format"], strict["format"]] == scores
    assert released["score"] == scores[1] + scores[2]


def test_the_hacks_of_the_issue_are_in_the_table():
    tricks = " ".join(trick for trick, _, _ in table_rows())
    for hack in (
        "all letters",
        "an answer only inside the thinking",
        "two answers",
        "an empty thinking",
        "a repeated letter",
        "tags without content",
    ):
        assert hack in tricks


def test_only_the_documented_hacks_are_read_leniently():
    gained = {
        trick
        for trick, response, _ in table_rows()
        if parse_answer(response) is None and parse_answer(response, lenient=True) is not None
    }
    assert gained == {
        "an answer inside the thinking and one after it",
        "two answers in one tag",
        "no tag at all",
        "tags by the dozen",
    }


BOX = [0, 0, 0.5, 0.5]
TRUTHS = {
    **{task: truth for task, truth in bench.TRUTHS.items() if task != "multiple_choice"},
    "tracking": {"boxes": [BOX] * 4, "coordinates": "normalised"},
    "spatial_grounding": {"boxes": [BOX, [0.5, 0.5, 1, 1]], "coordinates": "normalised"},
}
"""The truths that the document names."""


def task_rows() -> list[tuple[str, str, str, float, float]]:
    """(task, trick, answer, accuracy, soft accuracy) of each row."""
    rows = []
    for line in part("## Other tasks").splitlines():
        if line.startswith("| ") and "`" in line:
            task, trick, answer, accuracy, soft, _ = (cell.strip() for cell in line[1:-1].split("|"))
            rows.append((task, trick, answer.strip("`"), float(accuracy), float(soft)))
    return rows


@pytest.mark.parametrize(("task", "trick", "answer", "accuracy", "soft"), task_rows())
def test_a_documented_hack_of_a_task_scores_as_documented(task, trick, answer, accuracy, soft):
    text = f"<think>x</think><answer>{answer}" + ("" if "</answer>" in answer else "</answer>")
    result = score(task, text, TRUTHS[task])
    assert (result["accuracy"], result["soft_accuracy"]) == (accuracy, pytest.approx(soft, abs=1e-3))


def test_every_task_has_its_hacks_documented():
    assert {task for task, *_ in task_rows()} == set(TRUTHS) == set(TASKS) - {"multiple_choice"}
