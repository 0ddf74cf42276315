"""The frames of a question's video as the model saw them, small: one picture per video with its frames side by side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from verl_twgrpo.files import atomic_write
from verl_twgrpo.video.rate import seconds_per_grid, time_coordinates

HEIGHT = 168
"""Pixels; larger frames are made smaller, the others stay as they are."""
QUALITY = 80
PATCH_SIZES = (14, 16)
"""Of Qwen2-VL and Qwen2.5-VL, and of Qwen3-VL: a cache's file names say with which it was filled."""
FRAMES_PER_GRID = 2


class FrameStrips:
    """Writes each video's frames once into ``folder``, as long as all of them together stay below ``budget`` bytes.

    caches: folders that ``verl-twgrpo data frames`` filled; what is in none is decoded. tokens_per_second: of the model
    (Qwen2.5-VL), None for a model that counts time otherwise.
    """

    def __init__(
        self, folder: Path, caches: Iterable[Path], tokens_per_second: float | None, patch_size: int, budget: int
    ) -> None:
        self._folder = folder
        self._caches = list(caches)
        self._tokens_per_second = tokens_per_second
        self._patch_size = patch_size
        self._left = budget
        self._known: dict[str, dict[str, Any]] = {}

    def strip(self, video: Mapping[str, Any]) -> dict[str, Any]:
        """File, number and size of the frames, seconds of each and its time coordinate; or {"missing": why}."""
        key = hashlib.sha256(json.dumps(dict(video), sort_keys=True, default=str).encode()).hexdigest()[:16]
        if key not in self._known:
            self._known[key] = self._make(key, video)
        return self._known[key]

    def _make(self, key: str, video: Mapping[str, Any]) -> dict[str, Any]:
        if self._left <= 0:
            return {"missing": "left out to keep this page small"}
        try:
            frames, metadata = self._frames(video)
        except (OSError, ValueError, KeyError) as error:
            return {"missing": f"neither in the frame cache nor to be decoded: {error}"}
        path = self._folder / f"{key}.jpg"
        width, height = _write_strip(path, frames)
        self._left -= path.stat().st_size
        fps, indices = metadata.get("fps"), metadata.get("frames_indices")
        described: dict[str, Any] = {"src": f"frames/{key}.jpg", "n": len(frames), "w": width, "h": height}
        described["seen"] = [int(frames.shape[-1]), int(frames.shape[-2])]
        if fps and indices is not None:
            described["seconds"] = [round(float(index) / float(fps), 3) for index in indices]
        if self._tokens_per_second:
            grids = -(-len(frames) // FRAMES_PER_GRID)
            described["t"] = time_coordinates(grids, seconds_per_grid(metadata), self._tokens_per_second)
        return described

    def _frames(self, video: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        if {"nframes", "min_pixels", "max_pixels"} <= set(video):
            from verl_twgrpo.video.cache import FrameCache

            for folder in self._caches:
                for patch_size in PATCH_SIZES:
                    cache = FrameCache(folder, patch_size)
                    if video in cache:
                        return cache.get(video)
        from verl_twgrpo.video.decode import prepare_video

        return prepare_video(video, self._patch_size)


def _write_strip(path: Path, frames: Any) -> tuple[int, int]:
    """One JPEG of uint8 frames [T, 3, height, width] side by side; returns width and height of one of them."""
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in frames.permute(0, 2, 3, 1).contiguous().numpy()]
    width, height = pictures[0].size
    if height > HEIGHT:
        width, height = max(1, round(width * HEIGHT / height)), HEIGHT
        pictures = [picture.resize((width, height)) for picture in pictures]
    strip = Image.new("RGB", (width * len(pictures), height))
    for number, picture in enumerate(pictures):
        strip.paste(picture, (number * width, 0))
    with atomic_write(path) as part:
        strip.save(part, format="JPEG", quality=QUALITY, optimize=True)
    return width, height
