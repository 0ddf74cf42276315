"""How much time lies between a video's frames: from its metadata to the coordinates that a Qwen model tells time by.

``metadata`` is what qwen-vl-utils, transformers and vLLM all hand on with the frames: ``fps`` of the file,
``frames_indices`` of the sampled frames in it and ``total_num_frames``, the frames that were sampled from.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

# Frames per second of frames that come without a rate: qwen-vl-utils samples Qwen2.5-VL's videos at it, and takes lists
# of frames for it (qwen_vl_utils/vision_process.py, FPS and sample_fps).
DEFAULT_RATE = 2.0


def sampled_rate(metadata: Mapping[str, Any] | None) -> float | None:
    """Sampled frames per second; None where the metadata do not say it.

    Frames over the time that they were sampled from, as in qwen-vl-utils' readers and transformers' ``VideoMetadata``.
    """
    values = [(metadata or {}).get(key) for key in ("fps", "frames_indices", "total_num_frames")]
    fps, indices, total = values
    if not fps or not total or indices is None or not len(indices):
        return None
    return len(indices) / float(total) * float(fps)


def constant_rate(frames: int, rate: float = DEFAULT_RATE) -> dict[str, Any]:
    """Metadata of ``frames`` frames at ``rate`` per second, of which none was left out."""
    return {"fps": rate, "frames_indices": list(range(frames)), "total_num_frames": frames}


def with_rate(metadata: Mapping[str, Any] | None, frames: int) -> dict[str, Any]:
    """``metadata``, or those of ``frames`` frames at ``DEFAULT_RATE`` where it does not tell their rate."""
    return dict(metadata or {}) | (constant_rate(frames) if sampled_rate(metadata) is None else {})


@cache
def say_default_rate() -> None:
    """Say once in this process that frames came without a rate."""
    logger.warning(
        "Video frames came without a rate: taken as %g per second. Give sample_fps beside a list of frames, or the "
        "file itself; see docs/video_time.md",
        DEFAULT_RATE,
    )


def seconds_per_grid(metadata: Mapping[str, Any] | None, frames_per_grid: int = 2) -> float:
    """Seconds from one temporal grid (``temporal_patch_size`` frames) to the next, by the rate or ``DEFAULT_RATE``.

    A number of float32, as both sides hold it: 8 of 75 frames at 25 per second are 0.75 s, not 0.7499999999999999.
    """
    return float(np.float32(frames_per_grid / (sampled_rate(metadata) or DEFAULT_RATE)))


def grid_seconds(grids: int, seconds: float) -> list[float]:
    """When each of ``grids`` temporal grids begins, in seconds from the first; ``seconds``: of one grid."""
    return [grid * seconds for grid in range(grids)]


def time_coordinates(grids: int, seconds: float, tokens_per_second: float) -> list[int]:
    """M-RoPE's time coordinate of each of ``grids`` temporal grids, from the first one's.

    Qwen2.5-VL: int(grid * seconds * tokens_per_second) with 2 tokens per second in the released configurations
    (vLLM, model_executor/models/qwen2_5_vl.py). Qwen2-VL counts grids, as if seconds * tokens_per_second were 1.
    """
    return [int(grid * (seconds * tokens_per_second)) for grid in range(grids)]


def timestamps(metadata: Mapping[str, Any], frames_per_grid: int = 2) -> list[float]:
    """Seconds of each temporal grid as Qwen3-VL's prompt writes them: the mean of its first and last frame's."""
    times = [float(index) / float(metadata["fps"]) for index in metadata["frames_indices"]]
    times += times[-1:] * (-len(times) % frames_per_grid)
    return [(times[k] + times[k + frames_per_grid - 1]) / 2 for k in range(0, len(times), frames_per_grid)]


def rate_of_list(video: Mapping[str, Any]) -> float | None:
    """Frames per second of a video given as a list of frames, as its row says (``sample_fps``); None if not."""
    rate = video.get("sample_fps")
    return float(rate) if rate else None


def is_list_of_frames(video: Mapping[str, Any]) -> bool:
    """Whether the row gives the video frame by frame (files or pictures) and not as one file."""
    return isinstance(video.get("video"), Sequence) and not isinstance(video["video"], str)
