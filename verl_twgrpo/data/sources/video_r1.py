"""Video-R1-260k: mixed tasks, on videos and on images.

Video-R1-260k.json: {problem_id, problem, data_type "video" | "image", problem_type "multiple choice" | "numerical" |
"OCR" | "free-form" | "regression", options ["A. ..", ..], solution "<answer>..</answer>", path, data_source}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from verl_twgrpo.data.schema import Item
from verl_twgrpo.data.sources.fields import Skipped, released, text
from verl_twgrpo.data.sources.source import Source
from verl_twgrpo.rewards import TASKS

TASK_OF_TYPE = {"numerical": "numeric", "OCR": "ocr", "free-form": "open_ended", "regression": "regression"}


def convert(row: Mapping[str, Any], split: str) -> Iterator[Item | Skipped]:
    """The item of one row; raises ``ValueError`` naming the field."""
    identity = text(row, "problem_id")
    medium = text(row, "data_type")
    if medium not in ("video", "image"):
        raise ValueError(f"data_type: {medium!r} is neither video nor image")
    kind = text(row, "problem_type")
    if kind == "multiple choice":
        item = released(row, "video_r1", split, question_type=str(row.get("data_source") or ""))
        yield replace(item, image=item.video, video="") if medium == "image" and isinstance(item, Item) else item
        return
    if kind not in TASK_OF_TYPE:
        raise ValueError(f"problem_type: {kind!r} is none of multiple choice, {', '.join(TASK_OF_TYPE)}")
    task, path = TASK_OF_TYPE[kind], text(row, "path")
    truth = text(row, "solution").removeprefix("<answer>").removesuffix("</answer>").strip()
    try:
        TASKS[task].read_truth(truth, {}, "solution")
    except ValueError:
        yield Skipped(f"a solution that no {kind} answer can equal", identity)
        return
    yield Item(
        id=identity,
        source="video_r1",
        split=split,
        question=text(row, "problem"),
        options=(),
        answers=frozenset(),
        video=path if medium == "video" else "",
        image=path if medium == "image" else "",
        question_type=str(row.get("data_source") or ""),
        task=task,
        truth=truth,
    )


SOURCE = Source("video_r1", convert, split="train", prompt="video_r1", unique_video_names=False)
