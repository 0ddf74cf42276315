"""STAR, four options, one of them true.

Official (STAR_{train,val}.json): {question_id "Interaction_T1_13", question, video_id, start, end in seconds, answer as
text, choices [{choice_id, choice}]}. Video-R1's form, which the released code starts from: {problem_id, problem,
options ["A. ..", ..], solution, path}; the released code's own STAR.json has id for problem_id and bare options.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from verl_twgrpo.data.schema import Item
from verl_twgrpo.data.sources.fields import Skipped, letter_of_text, letters, options, released, text
from verl_twgrpo.data.sources.source import Source


def convert(row: Mapping[str, Any], split: str) -> Iterator[Item | Skipped]:
    """The item of one row; raises ``ValueError`` naming the field."""
    if "question_id" in row:
        yield _official(row, split)
    elif "problem_id" in row:
        yield released(row, "star", split)
    else:
        yield Item(
            id=text(row, "id"),
            source="star",
            split=split,
            question=text(row, "question"),
            options=options(row),
            answers=letters(text(row, "solution"), "solution"),
            video=text(row, "video"),
        )


def _official(row: Mapping[str, Any], split: str) -> Item:
    raw = row.get("choices")
    if not isinstance(raw, list) or not all(isinstance(choice, Mapping) for choice in raw):
        raise ValueError(f"choices: need a list of choices, got {raw!r}")
    choices = tuple(text(choice, "choice") for choice in raw)
    identity = text(row, "question_id")
    return Item(
        id=identity,
        source="star",
        split=split,
        question=text(row, "question"),
        options=choices,
        answers=letter_of_text(text(row, "answer"), choices, "answer"),
        video=text(row, "video_id") + ".mp4",
        question_type=identity.split("_")[0],
        # the questions are about a part of the video; the published training uses the whole of it
        provenance={key: row[key] for key in ("start", "end") if key in row},
    )


SOURCE = Source("star", convert, split="train", prompt="video_r1", unique_video_names=True)
