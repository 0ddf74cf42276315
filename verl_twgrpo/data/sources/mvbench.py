"""MVBench, one true option.

Official (json files of the hub's OpenGVLab/MVBench, one per task): {video, question, candidates [..], answer, and
for some tasks start, end in seconds}. Video-R1's form: {problem_id, problem, options, solution, video}, whose part-of-
video tasks are answered from the whole video, as here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from verl_twgrpo.data.schema import Item
from verl_twgrpo.data.sources.fields import Skipped, digest_id, letter_of_text, options, released, text
from verl_twgrpo.data.sources.source import Source


def convert(row: Mapping[str, Any], split: str) -> Iterator[Item | Skipped]:
    """The item of one row; raises ``ValueError`` naming the field."""
    if "candidates" not in row:
        yield released(row, "mvbench", split)
        return
    video, question = text(row, "video"), text(row, "question")
    choices = options(row, "candidates")
    yield Item(
        id=digest_id(video, "\n".join((question, *choices))),
        source="mvbench",
        split=split,
        question=question,
        options=choices,
        answers=letter_of_text(text(row, "answer"), choices, "answer"),
        video=video,
        provenance={key: row[key] for key in ("start", "end") if row.get(key) is not None},
    )


SOURCE = Source("mvbench", convert, split="test", prompt="video_r1")
