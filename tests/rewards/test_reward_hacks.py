"""The table of known hacks in rewards/hacks.md, row by row: what is documented is what is scored."""

from __future__ import annotations

from pathlib import Path

import pytest

import verl_twgrpo.rewards
from verl_twgrpo.rewards import compute_score, parse_answer

DOCUMENT = Path(verl_twgrpo.rewards.__file__).with_name("hacks.md")


def table_rows() -> list[tuple[str, str, list[float]]]:
    """(trick, response, [accuracy, soft accuracy, format, strict format]) of each row."""
    lines = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
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
