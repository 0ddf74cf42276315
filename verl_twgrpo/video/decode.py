"""A video file to a few frames, decoded with PyAV and sampled and sized as qwen-vl-utils does.

``read_frames`` has the form of qwen-vl-utils' own readers (qwen_vl_utils/vision_process.py, VIDEO_READER_BACKENDS), and
``prepare_video`` gives what its ``fetch_video`` makes of such a reader's frames, kept as bytes.
"""

from __future__ import annotations

import statistics
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import torch

from verl_twgrpo.torchvision_ops import declare_missing_ops

_importing = threading.Lock()
# a frame's duration may differ from the median by this share before the rate counts as variable
_RATE_TOLERANCE = 0.5
# the sound may go on after the last frame for a second and this share of the whole
_LENGTH_TOLERANCE = 0.1


class VideoError(ValueError):
    """A video that cannot be used; the message names the file and says why."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file's packets say, without decoding: number of frames, frames a second, size in pixels.

    ``times`` and ``keyframes`` are presentation times, ascending, in the stream's time base; both are empty if the file
    does not give each frame a time of its own. ``notes`` are findings that do not stop the video from being used.
    """

    frames: int
    fps: float
    height: int
    width: int
    notes: tuple[str, ...] = ()
    times: tuple[int, ...] = field(default=(), repr=False)
    keyframes: tuple[int, ...] = field(default=(), repr=False)


def probe(path: str | Path) -> VideoInfo:
    """Look at a video without decoding it; raises ``VideoError`` if it is missing, broken, truncated or empty."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        if not packets:
            raise VideoError(f"{path}: zero frames")
        if stream.frames > len(packets):
            raise VideoError(f"{path}: truncated, {len(packets)} of {stream.frames} frames")
        if not stream.average_rate:
            raise VideoError(f"{path}: no frame rate")
        times = sorted({packet.pts for packet in packets if packet.pts is not None})
        exact = len(times) == len(packets)
        return VideoInfo(
            frames=len(packets),
            fps=float(stream.average_rate),
            height=stream.height,
            width=stream.width,
            notes=_notes(container, stream, times),
            times=tuple(times) if exact else (),
            keyframes=tuple(sorted(packet.pts for packet in packets if packet.is_keyframe)) if exact else (),
        )


@contextmanager
def _opened(path: str | Path) -> Iterator[av.container.InputContainer]:
    """The open file, which has a video stream; whatever FFmpeg says against it becomes a ``VideoError``."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(f"{path}: no video stream")
            container.streams.video[0].codec_context.thread_count = 1  # videos are decoded side by side, not frames
            yield container
    except FileNotFoundError:
        raise VideoError(f"{path}: no such video") from None
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: broken video ({error})") from None


def _notes(container: av.container.InputContainer, stream: av.VideoStream, times: list[int]) -> tuple[str, ...]:
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    usual = statistics.median(gaps) if gaps else 0
    notes = []
    if any(abs(gap - usual) > _RATE_TOLERANCE * usual for gap in gaps):
        notes.append("variable rate: frames are sampled evenly by number, not by time")
    # containers that do not count their frames (Matroska) still say how long they last
    if times and container.duration and stream.time_base:
        end = float((times[-1] + usual) * stream.time_base)
        declared = container.duration / av.time_base
        if end < declared * (1 - _LENGTH_TOLERANCE) - 1:
            notes.append(f"ends early: frames for {end:.1f} s of {declared:.1f} s")
    return tuple(notes)


def _vision_process() -> ModuleType:
    """qwen-vl-utils, which imports torchvision. Not at the top: the plugin gives it ``read_frames`` on its import."""
    with _importing:
        declare_missing_ops()
        from qwen_vl_utils import vision_process

        return vision_process


def sample_indices(first: int, last: int, nframes: int) -> list[int]:
    """``nframes`` frame numbers spread evenly from ``first`` to ``last``, both included (as qwen-vl-utils).

    A video with fewer frames than asked for has frames repeated, so that every item has as many; qwen-vl-utils itself
    refuses such a video.
    """
    return torch.linspace(first, last, nframes).round().long().tolist()


def read_frames(video: Mapping[str, Any], info: VideoInfo | None = None) -> tuple[torch.Tensor, dict[str, Any], float]:
    """Decode the sampled frames of ``video`` = {"video": path, "nframes": n, ..}.

    Without nframes the number follows from fps, as in qwen-vl-utils; video_start and video_end (seconds) cut. Returns
    frames as uint8 [T, 3, height, width], the metadata that qwen-vl-utils gives, and the sampled frames a second.
    ``info`` saves the look at the file if it was had before. Raises ``VideoError``.
    """
    path = str(video["video"]).removeprefix("file://")
    info = info or probe(path)
    qwen = _vision_process()
    first, last, total = qwen.calculate_video_frame_range(video, info.frames, info.fps)
    if "nframes" in video:
        nframes = qwen.round_by_factor(video["nframes"], qwen.FRAME_FACTOR)
    else:
        nframes = qwen.smart_nframes(video, total_frames=total, video_fps=info.fps)
    indices = sample_indices(first, last, nframes)
    pictures = _decode(path, info, sorted(set(indices)))
    frames_THWC = torch.from_numpy(np.stack([pictures[k] for k in indices]))
    metadata = {
        "fps": info.fps,
        "frames_indices": indices,
        "total_num_frames": total,
        "video_backend": "pyav",
    }
    return frames_THWC.permute(0, 3, 1, 2), metadata, nframes / total * info.fps


def _decode(path: str, info: VideoInfo, wanted: list[int]) -> dict[int, np.ndarray]:
    """The frames numbered ``wanted`` (ascending) as uint8 [height, width, 3].

    Between two of them a long video is not decoded but skipped up to the last key frame before the next.
    """
    pictures: dict[int, np.ndarray] = {}
    with _opened(path) as container:
        stream = container.streams.video[0]
        frames, number = container.decode(stream), -1
        for target in wanted:
            if info.times:
                key = info.keyframes[bisect_right(info.keyframes, info.times[target]) - 1] if info.keyframes else None
                if key is not None and key > info.times[max(number, 0)]:
                    container.seek(key, stream=stream, backward=True)
                    frames = container.decode(stream)
            for frame in frames:
                timed = info.times and frame.pts is not None
                number = bisect_left(info.times, frame.pts) if timed else number + 1
                if number >= target:
                    break
            if number != target:
                raise VideoError(f"{path}: truncated, frame {target} of {info.frames} cannot be decoded")
            pictures[target] = frame.to_ndarray(format="rgb24")
    return pictures


def frame_size(height: int, width: int, video: Mapping[str, Any], image_patch_size: int = 14) -> tuple[int, int]:
    """Height and width that qwen-vl-utils' ``fetch_video`` resizes the frames of ``video`` to.

    ``video`` has nframes, min_pixels and max_pixels; both sides become multiples of two patches, aspect nearly kept.
    """
    qwen = _vision_process()
    factor = image_patch_size * qwen.SPATIAL_MERGE_SIZE
    min_pixels, max_pixels = video["min_pixels"], video["max_pixels"]
    total_pixels = qwen.MODEL_SEQ_LEN * factor**2 * 0.9
    limit = min(qwen.VIDEO_MAX_TOKEN_NUM * factor**2, total_pixels / video["nframes"] * qwen.FRAME_FACTOR)
    limit = max(limit, int(min_pixels * 1.05))
    return qwen.smart_resize(height, width, factor=factor, min_pixels=min_pixels, max_pixels=min(max_pixels, limit))


def prepare_video(
    video: Mapping[str, Any], image_patch_size: int = 14, info: VideoInfo | None = None
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Frames of ``video`` as the model's processor takes them: uint8 [T, 3, height, width], and their metadata.

    ``.float()`` of the frames equals what ``qwen_vl_utils.fetch_video`` returns. Raises ``VideoError``.
    """
    frames, metadata, _ = read_frames(video, info)
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as transforms

    size = frame_size(frames.shape[2], frames.shape[3], video, image_patch_size)
    # on bytes torchvision rounds and clamps the result, so nothing is lost by keeping bytes
    resized = transforms.resize(frames, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)
    return resized.contiguous(), metadata
