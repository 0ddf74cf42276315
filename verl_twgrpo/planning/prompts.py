"""What the prompts of a data file cost in tokens: videos, images, and with the checkpoint's processor the whole."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tqdm import tqdm

from verl_twgrpo.data.check import frames_shape, prompt_counter
from verl_twgrpo.data.images import image_shape
from verl_twgrpo.data.parquet import FrameLimits, read_rows
from verl_twgrpo.video.cache import video_key

# Qwen-VL's vision tower makes one token of two frames and of 2 x 2 patches
FRAMES_PER_TOKEN, PATCHES_PER_SIDE = 2, 2


@dataclass(frozen=True)
class PromptCost:
    """Tokens of the prompts of one data setting.

    rows: how many there are, None if no file is there. video, image: fewest and most tokens of one, zeros where no row
    has any. measured: from the sizes of videos and images, not from the pixel limits. longest: the longest prompt with
    its text, None where no processor counts it, as where a row has several of them. several: most tokens that those of
    such a row have together, 0 where there is none.
    """

    rows: int | None
    video: tuple[int, int]
    measured: bool
    longest: int | None
    image: tuple[int, int] = (0, 0)
    several: int = 0

    @property
    def visual(self) -> int:
        """Most tokens that the videos and images of a row have."""
        return max(self.video[1], self.image[1], self.several)


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
    A file without videos may be anybody's; raises ``ValueError`` naming a video or an image that is broken, or a file
    of videos without the columns that `data convert` writes.
    """
    here = [file for file in (os.path.expanduser(file) for file in files) if os.path.isfile(file)]
    if not here:
        most = most_video_tokens(absent, patch_size)
        return PromptCost(None, (most, most), False, None)
    rows = [row for file in here for row in _rows(file)]
    shapes: dict[str, tuple[int, ...] | None] = {}
    for row in tqdm(rows, desc="videos and images", unit="row", disable=None, leave=False):
        for shown in _shown(row):
            shapes.setdefault(_key(shown), _shape(shown, patch_size))
    tokens: dict[str, list[int]] = {"video": [], "image": []}
    several = 0
    for row in rows:
        of_row = _shown(row)
        counts = [_tokens(shown, shapes[_key(shown)], patch_size) for shown in of_row]
        for shown, count in zip(of_row, counts, strict=True):
            tokens["video" if "video" in shown else "image"].append(count)
        if len(of_row) > 1:
            several = max(several, sum(counts))
    measured = all(shapes.values())
    longest = None
    # the counter takes one video or image
    if measured and model is not None and _has_processor(model) and all(len(_shown(row)) < 2 for row in rows):
        length = prompt_counter(str(model))
        longest = max(length(row, shapes[_key(_shown(row)[0])] if _shown(row) else None) for row in rows)
    video, image = ((min(found, default=0), max(found, default=0)) for found in tokens.values())
    return PromptCost(len(rows), video, measured, longest, image, several)


def check_budget(what: str, cost: PromptCost, budget: int) -> None:
    """Raises ``ValueError`` if the prompts of ``what`` (a key of the configuration) are longer than ``budget``."""
    if cost.longest is not None:
        fits, found = cost.longest <= budget, f"its longest prompt has {cost.longest} tokens"
    else:
        # a prompt is never the video or image alone
        which = (
            "a video"
            if cost.video[1] == cost.visual
            else "an image"
            if cost.image[1] == cost.visual
            else "what a row shows"
        )
        fits, found = cost.visual < budget, f"{which} alone has {cost.visual} tokens"
        if cost.rows is None:
            found = f"at the paper's frames and pixels {found}"
    if not fits:
        raise ValueError(
            f"data.max_prompt_length={budget}: too small for {what}: {found}, and verl does not cut videos and images; "
            "raise it, or convert the data with fewer --nframes, --max-frame-tokens or --max-image-tokens"
        )


def _rows(file: str) -> list[dict[str, Any]]:
    """Rows with their videos; those of a file that has no video are not asked for more than verl asks for."""
    rows = pq.read_table(file).to_pylist()
    if any(row.get("videos") for row in rows):
        return read_rows(file)
    return [{**row, "videos": []} for row in rows]


def _shown(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The row's videos and images; what an image costs that is no path is not known here."""
    images = [
        image if isinstance(image, Mapping) and isinstance(image.get("image"), str) else {"image": ""}
        for image in row.get("images") or []
    ]
    return [*row["videos"], *images]


def _key(shown: Mapping[str, Any]) -> str:
    if "video" in shown:
        return video_key(shown)
    return str((shown["image"], shown.get("min_pixels"), shown.get("max_pixels")))


def _shape(shown: Mapping[str, Any], patch_size: int) -> tuple[int, ...] | None:
    if "video" in shown:
        return frames_shape(shown, None, patch_size) if os.path.isfile(shown["video"]) else None
    return image_shape(shown, patch_size) if os.path.isfile(shown["image"]) else None


def _tokens(shown: Mapping[str, Any], shape: tuple[int, ...] | None, patch_size: int) -> int:
    if "video" in shown:
        if shape is None:
            return most_video_tokens(FrameLimits.of(shown), patch_size)
        return video_tokens(shape[0], shape[2], shape[3], patch_size)
    side = patch_size * PATCHES_PER_SIDE
    if shape is None:
        return (shown.get("max_pixels") or 0) // side**2
    return (shape[1] // side) * (shape[2] // side)


def _has_processor(model: Path) -> bool:
    names = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
    return any((model / name).is_file() for name in names)
