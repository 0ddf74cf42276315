"""How a video becomes frames: their number, and their size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# one visual token of Qwen2.5-VL covers 28 x 28 pixels: 14 x 14 patches, merged 2 x 2
TOKEN_PIXELS = 28 * 28
# qwen-vl-utils' own bound for what it samples (qwen_vl_utils/vision_process.py, FPS_MAX_FRAMES)
MOST_FRAMES = 768


@dataclass(frozen=True)
class FrameLimits:
    """How a video becomes frames: ``nframes`` uniformly sampled, each resized into ``min_pixels`` to ``max_pixels``.

    The keys are those that qwen-vl-utils takes in a video's dict. The paper trains with frames of at most 128*28*28
    pixels (Section 4.1) and evaluates with 256*28*28, at most 16 frames. qwen-vl-utils would enlarge every frame below
    128*28*28 pixels, and beyond that limit where the sides are rounded up; 4*28*28 leaves small videos as they are.
    An image, of which there is one and not sixteen, has at most ``image_pixels`` (ours).
    Raises ``ValueError`` for values that qwen-vl-utils would refuse or change.
    """

    nframes: int = 16
    max_pixels: int = 128 * TOKEN_PIXELS
    min_pixels: int = 4 * TOKEN_PIXELS
    image_pixels: int = 1024 * TOKEN_PIXELS

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> FrameLimits:
        """Those of a row's video, or of its image."""
        if row["videos"]:
            return cls.of(row["videos"][0])
        image = row["images"][0]
        return cls(min_pixels=image["min_pixels"], image_pixels=image["max_pixels"])

    @classmethod
    def of(cls, video: Mapping[str, Any]) -> FrameLimits:
        """Those of a row's video."""
        return cls(video["nframes"], video["max_pixels"], video["min_pixels"])

    def __post_init__(self) -> None:
        if not 2 <= self.nframes <= MOST_FRAMES or self.nframes % 2:
            raise ValueError(
                f"nframes: {self.nframes}, need an even number from 2 to {MOST_FRAMES} (the vision tower pairs frames)"
            )
        if not TOKEN_PIXELS <= self.min_pixels <= self.max_pixels:
            raise ValueError(
                f"min_pixels {self.min_pixels}, max_pixels {self.max_pixels}: need {TOKEN_PIXELS} <= min <= max"
            )
        if self.image_pixels < self.min_pixels:
            raise ValueError(f"min_pixels {self.min_pixels}, image's max_pixels {self.image_pixels}: need min <= max")
