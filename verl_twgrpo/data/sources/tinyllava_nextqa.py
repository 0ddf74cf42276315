"""NExT-QA as TinyLLaVA-Video-R1 trains on it: videos of up to 30 seconds, five options, one of them true.

nextqa_0-30s.jsonl of the hub's Zhang199/TinyLLaVA-Video-R1-training-data: {problem "QUESTION\\nOptions:\\nA. ..\\nB.
..", solution "<answer>C</answer>", video_filename "./NextQA/NExTVideo/..mp4"}. verl's video example reads the same
file (examples/data_preprocess/tinyllava_video_r1.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from verl_twgrpo.data.schema import Item
from verl_twgrpo.data.sources.fields import Skipped, digest_id, letters, options, text
from verl_twgrpo.data.sources.source import Source

MARK = "\nOptions:\n"


def convert(row: Mapping[str, Any], split: str) -> Iterator[Item | Skipped]:
    """The item of one row; raises ``ValueError`` naming the field."""
    problem, video = text(row, "problem"), text(row, "video_filename")
    question, mark, listed = problem.partition(MARK)
    if not mark:
        raise ValueError(f"problem: need the options behind a line 'Options:', got {problem!r:.60}")
    lines = [line for line in listed.split("\n") if line.strip()]
    yield Item(
        id=digest_id(video, problem),
        source="tinyllava_nextqa",
        split=split,
        question=question.strip(),
        options=options({"problem": lines}, "problem"),
        answers=letters(text(row, "solution"), "solution"),
        video=video,
    )


SOURCE = Source("tinyllava_nextqa", convert, split="train", prompt="video_r1", unique_video_names=True)
