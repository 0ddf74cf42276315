"""Items to and from parquet, in the columns that verl's RLHFDataset reads (verl/utils/dataset/rl_dataset.py)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets import Value

from verl_twgrpo.data.limits import TOKEN_PIXELS, FrameLimits
from verl_twgrpo.data.prompts import messages
from verl_twgrpo.data.rows import IMAGE_FIELDS, read_raw_rows, row_problem
from verl_twgrpo.data.schema import MULTIPLE_CHOICE, Item
from verl_twgrpo.files import atomic_write, ensure_absent

__all__ = [
    "TOKEN_PIXELS",
    "FrameLimits",
    "from_row",
    "read_parquet",
    "read_rows",
    "to_row",
    "write_parquet",
    "write_rows",
]

_FEATURES = datasets.Features(
    {
        "data_source": Value("string"),
        "prompt": [{"role": Value("string"), "content": Value("string")}],
        "videos": [
            {
                "video": Value("string"),
                "nframes": Value("int64"),
                "min_pixels": Value("int64"),
                "max_pixels": Value("int64"),
                "digest": Value("string"),
            }
        ],
        "ability": Value("string"),
        "reward_model": {"style": Value("string"), "ground_truth": Value("string")},
        "extra_info": {
            "id": Value("string"),
            "index": Value("int64"),
            "split": Value("string"),
            "question": Value("string"),
            "options": [Value("string")],
            "question_type": Value("string"),
            "negated": Value("bool"),
            "provenance": Value("string"),
            "task": Value("string"),
            "decisive": [Value("string")],
        },
    }
)

_IMAGES = [{name: Value("string" if name in ("image", "digest") else "int64") for name in IMAGE_FIELDS}]


def to_row(item: Item, index: int, limits: FrameLimits, prompt: str | None = None) -> dict[str, Any]:
    """One row of the parquet file.

    The video's path is made absolute: verl opens it by this path in Ray workers, whose working directory is another.
    A row on an image has it under ``images``, and no video.
    """
    media = {"min_pixels": limits.min_pixels, "digest": item.video_digest}
    if item.image:
        images = [{"image": os.path.abspath(item.image), "max_pixels": limits.image_pixels, **media}]
        shown: dict[str, Any] = {"videos": [], "images": images}
    else:
        media |= {"nframes": limits.nframes, "max_pixels": limits.max_pixels}
        shown = {"videos": [{"video": os.path.abspath(item.video), **media}]}
    return {
        "data_source": item.source,
        "prompt": messages(item, prompt),
        **shown,
        "ability": "video_qa",
        "reward_model": {"style": "rule", "ground_truth": item.ground_truth},
        "extra_info": {
            "id": item.id,
            "index": index,
            "split": item.split,
            "question": item.question,
            "options": list(item.options),
            "question_type": item.question_type,
            "negated": item.negated,
            "provenance": json.dumps(item.provenance, ensure_ascii=False, sort_keys=True),
            "task": item.task,
            "decisive": list(item.decisive),
        },
    }


def from_row(row: Mapping[str, Any]) -> Item:
    """The item that ``to_row`` wrote; raises ``ValueError`` if the row's truth is not among its options."""
    extra, truth = row["extra_info"], row["reward_model"]["ground_truth"]
    task = extra.get("task") or MULTIPLE_CHOICE
    if not (shown := [*row["videos"], *(row.get("images") or ())]):
        raise ValueError("neither a video nor an image")
    media = shown[0]
    return Item(
        id=extra["id"],
        source=row["data_source"],
        split=extra["split"],
        question=extra["question"],
        options=tuple(extra["options"]),
        answers=frozenset(truth.split(",")) if task == MULTIPLE_CHOICE else frozenset(),
        video=media.get("video") or "",
        image=media.get("image") or "",
        question_type=extra["question_type"],
        negated=extra["negated"],
        video_digest=media["digest"],
        task=task,
        truth="" if task == MULTIPLE_CHOICE else truth,
        decisive=tuple(extra.get("decisive") or ()),
        provenance=json.loads(extra["provenance"]),
    )


def write_parquet(
    items: Sequence[Item],
    path: str | Path,
    *,
    limits: FrameLimits | None = None,
    prompt: str | None = None,
    force: bool = False,
    relative: bool = False,
) -> Path:
    """Write items to ``path``; the file appears whole or not at all. ``prompt`` overrides the prompt of the source.

    Raises ``ValueError`` if there are no items, and ``FileExistsError`` if the file is there and ``force`` is not set.
    """
    limits = limits or FrameLimits()
    return write_rows(
        [to_row(item, k, limits, prompt) for k, item in enumerate(items)], path, force=force, relative=relative
    )


def write_rows(
    rows: Sequence[dict[str, Any]], path: str | Path, *, force: bool = False, relative: bool = False
) -> Path:
    """Write rows as ``to_row`` makes them or ``read_rows`` reads them; the same promises as ``write_parquet``.

    ``relative``: the videos' paths are written from the file's folder, so that both can be moved together.
    """
    path = Path(path)
    if not rows:
        raise ValueError(f"{path}: no items to write (verl cannot train on an empty file)")
    ensure_absent([path], force)
    pictures = any(row.get("images") for row in rows)
    if relative and pictures:
        raise ValueError(f"{path}: --relative is for videos alone; verl looks for a relative image where it runs")
    if relative:
        rows = [{**row, "videos": _from_folder(row["videos"], path)} for row in rows]
    with atomic_write(path) as part:
        # a file of an earlier version has neither
        former = {"task": MULTIPLE_CHOICE, "decisive": []}
        rows = [{**row, "extra_info": {**former, **row["extra_info"]}} for row in rows]
        features = datasets.Features(_FEATURES | {"images": _IMAGES}) if pictures else _FEATURES
        if pictures:
            rows = [{"images": [], **row} for row in rows]
        else:
            rows = [{name: value for name, value in row.items() if name != "images"} for row in rows]
        datasets.Dataset.from_list(rows, features=features).to_parquet(part)
    return path


def _from_folder(videos: Sequence[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    folder = os.path.dirname(os.path.abspath(path))
    return [{**video, "video": os.path.relpath(video["video"], folder)} for video in videos]


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a parquet file that ``write_rows`` wrote, with absolute paths of their videos.

    Raises ``ValueError`` naming the columns that verl would miss, or the row and field that cannot be used.
    """
    rows = read_raw_rows(path)
    for number, row in enumerate(rows):
        problem = row_problem(row)
        if problem:
            raise ValueError(f"{path}: row {number}: {problem}")
    return rows


def read_parquet(path: str | Path) -> list[Item]:
    """The items of a file that ``write_parquet`` wrote. Raises ``ValueError`` naming file and row of a bad one."""
    items = []
    for number, row in enumerate(read_rows(path)):
        try:
            items.append(from_row(row))
        except ValueError as error:
            raise ValueError(f"{path}: row {number}: {error}") from None
    return items
