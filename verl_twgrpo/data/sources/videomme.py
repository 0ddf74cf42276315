"""Video-MME without subtitles, four options, one of them true.

Official (the hub's lmms-lab/Video-MME): {video_id, videoID, question_id, task_type, question, options ["A. ..", ..],
answer "C", duration "short" | "medium" | "long"}. Video-R1's form has problem, solution and video as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from verl_twgrpo.data.schema import Item
from verl_twgrpo.data.sources.fields import Skipped, letters, options, text
from verl_twgrpo.data.sources.source import Source


def convert(row: Mapping[str, Any], split: str) -> Iterator[Item | Skipped]:
    """The item of one row; raises ``ValueError`` naming the field."""
    if isinstance(row.get("question"), Mapping):  # the released logs
        row = row["question"]
    yield Item(
        id=text(row, "question_id"),
        source="videomme",
        split=split,
        question=text(row, "question"),
        options=options(row),
        answers=letters(text(row, "answer"), "answer"),
        video=text(row, "videoID") + ".mp4",
        question_type=text(row, "task_type"),
        provenance={"duration": row.get("duration")},
    )


SOURCE = Source("videomme", convert, split="test", prompt="video_r1", unique_video_names=True)
