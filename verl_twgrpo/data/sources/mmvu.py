"""MMVU, multiple-choice questions.

Official (the hub's yale-nlp/MMVU): {id, video (an address), question, choices {"A": .., ..}, answer "C", question_type
"multiple-choice" | "open-ended", metadata {subject, ..}}. Video-R1's form: {problem_id, problem, options, solution,
video "/MMVU/videos/Chemistry/0.mp4"}. Videos are numbered by subject, so their folder belongs to their name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from verl_twgrpo.data.schema import LETTERS, Item
from verl_twgrpo.data.sources.fields import Skipped, letters, released, text
from verl_twgrpo.data.sources.source import Source


def convert(row: Mapping[str, Any], split: str) -> Iterator[Item | Skipped]:
    """The item of one row; raises ``ValueError`` naming the field."""
    if "choices" not in row:
        yield released(row, "mmvu", split)
        return
    identity = text(row, "id")
    kind = text(row, "question_type")
    if kind != "multiple-choice":
        yield Skipped(f"question_type {kind!r} has no options", identity)
        return
    choices, metadata = row["choices"], row.get("metadata")
    if not isinstance(choices, Mapping) or sorted(map(str, choices)) != list(LETTERS[: len(choices)]):
        raise ValueError(f"choices: need {{'A': .., 'B': .., ..}}, got {choices!r}")
    yield Item(
        id=identity,
        source="mmvu",
        split=split,
        question=text(row, "question"),
        options=tuple(text(choices, letter) for letter in sorted(choices)),
        answers=letters(text(row, "answer"), "answer"),
        video=text(row, "video").split("/resolve/main/")[-1],
        question_type=str(metadata.get("subject") or "") if isinstance(metadata, Mapping) else "",
    )


SOURCE = Source("mmvu", convert, split="validation", prompt="video_r1")
