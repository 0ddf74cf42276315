"""TempCompass, the multi-choice task.

Official (multi-choice.json): one object {video_id: {aspect: [{question, answer "A. .."}]}}, where the question has its
options "A. .." on lines of their own; the hub's lmms-lab/TempCompass has the same as rows {video_id, dim, question,
answer}. Video-R1's form: {problem_id, problem, options, solution, video}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from verl_twgrpo.data.schema import LETTERS, Item
from verl_twgrpo.data.sources.fields import Skipped, digest_id, options, released, text
from verl_twgrpo.data.sources.source import Source


def convert(row: Mapping[str, Any], split: str) -> Iterator[Item | Skipped]:
    """The items of one row; raises ``ValueError`` naming the field."""
    if "key" in row and "value" in row:  # an entry of the official object
        if not isinstance(row["value"], Mapping):
            raise ValueError(f"video {row['key']}: need {{aspect: [questions]}}, got {row['value']!r}")
        for aspect, questions in row["value"].items():
            if not isinstance(questions, list):
                raise ValueError(f"video {row['key']}: {aspect}: need a list of questions, got {questions!r:.60}")
            for question in questions:
                yield _official(question, str(row["key"]), aspect, split)
    elif "dim" in row:
        yield _official(row, text(row, "video_id"), text(row, "dim"), split)
    else:
        yield released(row, "tempcompass", split)


def _official(row: Mapping[str, Any], video: str, aspect: str, split: str) -> Item:
    whole = text(row, "question")
    question, *lines = [line.strip() for line in whole.splitlines() if line.strip()] or [""]
    choices = options({"question": lines}, "question")
    answer = text(row, "answer")
    if answer not in lines:
        raise ValueError(f"answer: {answer!r} is not among the options {lines}")
    return Item(
        id=digest_id(video, whole),
        source="tempcompass",
        split=split,
        question=question,
        options=choices,
        answers=frozenset(LETTERS[lines.index(answer)]),
        video=f"{video}.mp4",
        question_type=aspect,
    )


SOURCE = Source("tempcompass", convert, split="test", prompt="video_r1", unique_video_names=True)
