"""What the prompts of a data file cost in tokens: its videos, and with the checkpoint's processor the whole."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tqdm import tqdm

from verl_twgrpo.data.check import frames_shape, prompt_counter
from verl_twgrpo.data.parquet import FrameLimits, read_rows
from verl_twgrpo.video.cache import video_key

# Qwen-VL's vision tower makes one token of two frames and of 2 x 2 patches
FRAMES_PER_TOKEN, PATCHES_PER_SIDE = 2, 2


@dataclass(frozen=True)
class PromptCost:
    """Tokens of the prompts of one data setting.

    rows: how many there are, None if no file is there. video: fewest and most tokens of a video, zeros where no row has
    one. measured: from the sizes of the videos, not from the pixel limits. longest: the longest prompt with its text,
    None where no processor counts it.
    """

    rows: int | None
    video: tuple[int, int]
    measured: bool
    longest: int | None


def video_tokens(frames: int, height: int, width: int, patch_size: int = 14) -> int:
    """Tokens of a video of ``frames`` frames that are ``height`` x ``width`` pixels after resizing."""
    side = patch_size * PATCHES_PER_SIDE
    return frames // FRAMES_PER_TOKEN * (height // side) * (width // side)


def most_video_tokens(limits: FrameLimits, patch_size: int = 14) -> int:
    """Tokens that a video may have at most by its limits."""
    return limits.nframes // FRAMES_PER_TOKEN * (limits.max_pixels // (patch_size * PATCHES_PER_SIDE) ** 2)


def prompt_cost(files: Sequence[str], absent: FrameLimits, patch_size: int, model: Path | None) -> PromptCost:
    """Cost of the prompts in ``files``; those that are not there are taken to be made with the limits ``absent``.

    Videos are looked at, not decoded. ``model`` is a checkpoint whose processor, if it has one, counts whole prompts.
    A file without videos may be anybody's; raises ``ValueError`` naming a video that is broken, or a file of videos
    without the columns that `data convert` writes.
    """
    here = [file for file in (os.path.expanduser(file) for file in files) if os.path.isfile(file)]
    if not here:
        most = most_video_tokens(absent, patch_size)
        return PromptCost(None, (most, most), False, None)
    rows = [row for file in here for row in _rows(file)]
    shapes: dict[str, tuple[int, ...] | None] = {}
    for row in tqdm(rows, desc="videos", unit="row", disable=None, leave=False):
        for video in row["videos"]:
            shapes.setdefault(video_key(video), _shape(video, patch_size))
    tokens = [_tokens(video, shapes[video_key(video)], patch_size) for row in rows for video in row["videos"]]
    measured = all(shapes.values())
    longest = None
    # what an image costs nobody counts here
    if measured and model is not None and _has_processor(model) and not any(row.get("images") for row in rows):
        count = prompt_counter(str(model))
        longest = max(count(row, shapes[video_key(row["videos"][0])] if row["videos"] else None) for row in rows)
    return PromptCost(len(rows), (min(tokens, default=0), max(tokens, default=0)), measured, longest)


def check_budget(what: str, cost: PromptCost, budget: int) -> None:
    """Raises ``ValueError`` if the prompts of ``what`` (a key of the configuration) are longer than ``budget``."""
    if cost.longest is not None:
        fits, found = cost.longest <= budget, f"its longest prompt has {cost.longest} tokens"
    else:
        # a prompt is never the video alone
        fits, found = cost.video[1] < budget, f"a video alone has {cost.video[1]} tokens"
        if cost.rows is None:
            found = f"at the paper's frames and pixels {found}"
    if not fits:
        raise ValueError(
            f"data.max_prompt_length={budget}: too small for {what}: {found}, and verl does not cut videos; raise it, "
            "or convert the data with fewer --nframes or --max-frame-tokens"
        )


def _rows(file: str) -> list[dict[str, Any]]:
    """Rows with their videos; those of a file that has no video are not asked for more than verl asks for."""
    rows = pq.read_table(file).to_pylist()
    if any(row.get("videos") for row in rows):
        return read_rows(file)
    return [{**row, "videos": []} for row in rows]


def _shape(video: Mapping[str, Any], patch_size: int) -> tuple[int, ...] | None:
    return frames_shape(video, None, patch_size) if os.path.isfile(video["video"]) else None


def _tokens(video: Mapping[str, Any], shape: tuple[int, ...] | None, patch_size: int) -> int:
    if shape is None:
        return most_video_tokens(FrameLimits.of(video), patch_size)
    return video_tokens(shape[0], shape[2], shape[3], patch_size)


def _has_processor(model: Path) -> bool:
    names = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
    return any((model / name).is_file() for name in names)
