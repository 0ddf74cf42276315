"""CLEVRER, counterfactual questions.

Official annotations (train.json, validation.json): a list of scenes {scene_index, video_filename, questions: [{
question_id, question, question_type, choices: [{choice_id, choice, answer: "correct" | "wrong"}]}]}. The polarity of a
question is in its labels already; any number of choices may hold, and questions where none does are left out.

Released annotations (clevrer_counterfactual_{train,val}.json): {problem, solution, video}, where the problem holds the
question and, a line each, the options ("A The cube ...").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from verl_twgrpo.data.schema import LETTERS, Item
from verl_twgrpo.data.sources.fields import Skipped, digest_id, letters, text
from verl_twgrpo.data.sources.source import Source

_OPTION_LINE = re.compile(r"\(?([A-Z])[.):]*\s+(\S.*)")
_VERDICTS = {"correct": True, "wrong": False}


def convert(row: Mapping[str, Any], split: str) -> Iterator[Item | Skipped]:
    """The items of one row; raises ``ValueError`` naming question and field."""
    if "problem" in row:
        yield _released(row, split)
        return
    video, scene = text(row, "video_filename"), text(row, "scene_index")
    if not isinstance(row.get("questions"), list):
        raise ValueError(f"questions: need a list, got {row.get('questions')!r}")
    for question in row["questions"]:
        number = text(question, "question_id")
        try:
            kind = text(question, "question_type")
            if kind != "counterfactual":
                yield Skipped(f"question_type {kind}")
                continue
            yield _official(question, f"{scene}_{number}", video, split)
        except ValueError as error:
            raise ValueError(f"question_id {number}: {error}") from None


def _official(question: Mapping[str, Any], identity: str, video: str, split: str) -> Item | Skipped:
    choices = question.get("choices")
    if not isinstance(choices, list) or not choices:
        raise ValueError(f"choices: need a list, got {choices!r}")
    verdicts: list[Any] = [choice.get("answer") if isinstance(choice, Mapping) else None for choice in choices]
    for verdict in verdicts:
        if not isinstance(verdict, str) or verdict not in _VERDICTS:
            raise ValueError(f"choices: answer: need correct or wrong, got {verdict!r} (the test set has none)")
    answers = frozenset(letter for letter, v in zip(LETTERS, verdicts, strict=False) if _VERDICTS[v])
    if not answers:
        return Skipped("no choice is correct", identity)
    return Item(
        id=identity,
        source="clevrer",
        split=split,
        question=text(question, "question"),
        options=tuple(text(choice, "choice") for choice in choices),
        answers=answers,
        video=video,
        question_type="counterfactual",
    )


def _released(row: Mapping[str, Any], split: str) -> Item | Skipped:
    problem, video = text(row, "problem"), text(row, "video")
    lines = [line.strip() for line in problem.splitlines() if line.strip()]
    first = len(lines)
    while first > 1 and _OPTION_LINE.fullmatch(lines[first - 1]):
        first -= 1
    marks = [mark for line in lines[first:] if (mark := _OPTION_LINE.fullmatch(line))]
    found = "".join(mark.group(1) for mark in marks)
    if not found or found != LETTERS[: len(found)]:
        raise ValueError(f"problem: need the options on lines A, B, ... after the question, got {problem!r}")
    identity = digest_id(video, problem)
    solution = row.get("solution")
    if isinstance(solution, str) and not solution.replace("<answer>", "").replace("</answer>", "").strip():
        return Skipped("no choice is correct", identity)
    return Item(
        id=identity,
        source="clevrer",
        split=split,
        question=" ".join(lines[:first]),
        options=tuple(mark.group(2) for mark in marks),
        answers=letters(text(row, "solution"), "solution"),
        video=video,
        question_type="counterfactual",
    )


SOURCE = Source("clevrer", convert, split="train", prompt="clevrer", unique_video_names=True)
