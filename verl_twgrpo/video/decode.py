"""A video file to a few frames, decoded with PyAV and sampled and sized as qwen-vl-utils does.

``read_frames`` has the form of qwen-vl-utils' own readers (qwen_vl_utils/vision_process.py, VIDEO_READER_BACKENDS), and
``prepare_video`` gives what its ``fetch_video`` makes of such a reader's frames, kept as bytes.

A damaged video is refused: FFmpeg conceals what it cannot decode and goes on, so what it marks as corrupt and what it
logs as errors is looked at here. A changed byte may still decode to another picture without an error (H.264 has no
checksum); only the digest that a row carries can tell that, and it is compared wherever a video is decoded.
"""

from __future__ import annotations

import statistics
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import torch

from verl_twgrpo.torchvision_ops import declare_missing_ops
from verl_twgrpo.video.digest import known_digest
from verl_twgrpo.video.orientation import Orientation, orientation_of
from verl_twgrpo.video.rate import sampled_rate

_importing = threading.Lock()
# a frame's duration may differ from the median by this share before the rate counts as variable
_RATE_TOLERANCE = 0.5
# the sound may go on after the last frame for a second and this share of the whole
_LENGTH_TOLERANCE = 0.1

# FFmpeg's own decoders of these conceal without a word (66 of 100 damaged copies; libvpx: none of them)
_STRICT_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


class VideoError(ValueError):
    """A video that cannot be used; the message names the file and says why."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file's packets say, without decoding more than one frame: frames, frames per second, size in pixels.

    Height and width are those of the picture as a player shows it, with its rotation applied. ``times`` and
    ``keyframes`` are presentation times, ascending, in the stream's time base; both are empty if the file does not give
    each frame a time of its own. ``tick`` is the time base in seconds if the rate is variable and the times are known.
    ``notes`` are findings that do not stop the video from being used.
    """

    frames: int
    fps: float
    height: int
    width: int
    notes: tuple[str, ...] = ()
    times: tuple[int, ...] = field(default=(), repr=False)
    keyframes: tuple[int, ...] = field(default=(), repr=False)
    tick: float | None = None
    orientation: Orientation = Orientation()


def probe(path: str | Path) -> VideoInfo:
    """Look at a video, decoding one frame; raises ``VideoError`` if it is missing, broken, truncated or empty."""
    with _opened(path) as (container, _):
        stream = container.streams.video[0]
        present = [packet for packet in container.demux(stream) if packet.size]
        # what an edit list hides is decoded (a shown frame may need it) but not shown
        packets = [packet for packet in present if not packet.is_discard]
        if not packets:
            raise VideoError(f"{path}: zero frames")
        if stream.frames > len(present):
            raise VideoError(f"{path}: truncated, {len(present)} of {stream.frames} frames")
        if not stream.average_rate:
            raise VideoError(f"{path}: no frame rate")
        times = sorted({packet.pts for packet in packets if packet.pts is not None})
        exact = len(times) == len(packets)
        notes = _notes(container, stream, times)
        variable = _is_variable(times)
        if variable:
            notes = (f"variable rate: frames are sampled evenly {'in time' if exact else 'by number'}", *notes)
        tick = float(stream.time_base) if variable and exact and stream.time_base else None
        keyframes = tuple(sorted(packet.pts for packet in present if packet.is_keyframe)) if exact else ()
        rate = float(stream.average_rate)
    with _opened(path) as (container, _):
        frame = next(container.decode(container.streams.video[0]), None)
        if frame is None:
            raise VideoError(f"{path}: truncated, not one frame can be decoded")
        turn = orientation_of(frame)
        height, width = (frame.width, frame.height) if turn and turn.transposed else (frame.height, frame.width)
    if turn is None:
        notes += ("rotated by an angle that is not a multiple of 90 degrees: not applied",)
    return VideoInfo(
        frames=len(packets),
        fps=rate,
        height=height,
        width=width,
        notes=notes,
        times=tuple(times) if exact else (),
        keyframes=keyframes,
        tick=tick,
        orientation=turn or Orientation(),
    )


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[av.container.InputContainer, list[tuple[int, str, str]]]]:
    """The open file, which has a video stream, and the errors that FFmpeg logs about it in this thread.

    Whatever FFmpeg raises becomes a ``VideoError``.
    """
    _listen()
    try:
        with av.logging.Capture() as log, av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise VideoError(f"{path}: no video stream")
            if container.streams.video[0].codec_context is None:
                raise VideoError(f"{path}: broken video (its codec is unknown)")
            # videos are decoded side by side, not frames; and the log is that of this thread
            container.streams.video[0].codec_context.thread_count = 1
            yield container, log
    except FileNotFoundError:
        raise VideoError(f"{path}: no such video") from None
    except av.error.FFmpegError as error:
        detail = error.log[2].strip() if error.log else error.strerror
        raise VideoError(f"{path}: broken video ({detail})") from None
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror or error})") from None


def _listen() -> None:
    """Have FFmpeg's errors at all (PyAV drops them), and each of them: the same one may come from two threads."""
    if av.logging.get_level() is None:
        av.logging.set_skip_repeated(False)
        av.logging.set_level(av.logging.ERROR)


def _gaps(times: Sequence[int]) -> tuple[list[int], float]:
    """Times between frames, and the usual one."""
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    return gaps, statistics.median(gaps) if gaps else 0


def _is_variable(times: Sequence[int]) -> bool:
    gaps, usual = _gaps(times)
    return any(abs(gap - usual) > _RATE_TOLERANCE * usual for gap in gaps)


def _notes(container: av.container.InputContainer, stream: av.VideoStream, times: list[int]) -> tuple[str, ...]:
    _, usual = _gaps(times)
    notes = []
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


def sample_times(
    info: VideoInfo, nframes: int, start: float | None = None, end: float | None = None
) -> tuple[list[int], dict[str, Any]]:
    """Of a variable rate: the numbers of the frames shown at ``nframes`` evenly spaced times, and their metadata.

    ``start`` and ``end`` cut (seconds). The metadata count in milliseconds, as if the file had 1000 frames per second:
    whoever divides frame numbers by the rate gets the frames' own times.
    """
    tick = info.tick
    assert tick is not None, "of a constant rate"
    times = [(time - info.times[0]) * tick for time in info.times]
    first, last = max(start or 0.0, 0.0), times[-1] if end is None else min(end, times[-1])
    wanted = torch.linspace(first, last, nframes, dtype=torch.float64).tolist()
    indices = [max(bisect_right(times, time + tick / 2) - 1, 0) for time in wanted]
    length = last - first + _gaps(info.times)[1] * tick
    return indices, {
        "fps": 1000.0,
        "frames_indices": [round(times[k] * 1000) for k in indices],
        "total_num_frames": round(length * 1000),
        "video_backend": "pyav",
    }


def read_frames(
    video: Mapping[str, Any], info: VideoInfo | None = None, on_damage: Callable[[str], None] | None = None
) -> tuple[torch.Tensor, dict[str, Any], float | None]:
    """Decode the sampled frames of ``video`` = {"video": path, "nframes": n, ..}.

    Without nframes the number follows from fps, as in qwen-vl-utils; video_start and video_end (seconds) cut. Returns
    frames as uint8 [T, 3, height, width], the metadata that qwen-vl-utils gives, and the sampled frames per second.
    A file of variable rate is sampled evenly in time (``sample_times``).
    Pass ``info`` to skip probing the file again. Raises ``VideoError``, also if the file is not the one of the video's
    ``digest``, and if a frame that is decoded is damaged; with ``on_damage``, that is called instead.
    """
    path = str(video["video"]).removeprefix("file://")
    info = info or probe(path)
    if video.get("digest"):
        _check_digest(path, video["digest"])
    qwen = _vision_process()
    first, last, total = qwen.calculate_video_frame_range(video, info.frames, info.fps)
    if "nframes" in video:
        nframes = qwen.round_by_factor(video["nframes"], qwen.FRAME_FACTOR)
    else:
        nframes = qwen.smart_nframes(video, total_frames=total, video_fps=info.fps)
    indices = sample_indices(first, last, nframes)
    metadata = {"fps": info.fps, "frames_indices": indices, "total_num_frames": total, "video_backend": "pyav"}
    if info.tick is not None:
        indices, metadata = sample_times(info, nframes, video.get("video_start"), video.get("video_end"))
    pictures, damage = _decode(path, info, sorted(set(indices)))
    if damage:
        if on_damage is None:
            raise VideoError(f"{path}: {damage}")
        on_damage(damage)
    if len({picture.shape for picture in pictures.values()}) > 1:
        raise VideoError(f"{path}: its frames are of several sizes")
    frames_THWC = torch.from_numpy(np.stack([pictures[k] for k in indices]))
    return frames_THWC.permute(0, 3, 1, 2), metadata, sampled_rate(metadata)


def _check_digest(path: str, digest: str) -> None:
    try:
        found = known_digest(path)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror})") from None
    if found != digest:
        raise VideoError(f"{path}: changed since it was converted (SHA-256 {found[:12]}..)")


def _decode(path: str, info: VideoInfo, wanted: list[int]) -> tuple[dict[int, np.ndarray], str]:
    """The frames numbered ``wanted`` (ascending) as uint8 [height, width, 3], and what is damaged ("" if nothing)."""
    pictures, damage, skipped = _decode_once(path, info, wanted, skip=True)
    if damage and skipped:
        # a frame next to the key frame that was skipped to may need one before it: only a whole decode can accuse
        pictures, damage, _ = _decode_once(path, info, wanted, skip=False)
    return pictures, damage


def _decode_once(
    path: str, info: VideoInfo, wanted: list[int], *, skip: bool
) -> tuple[dict[int, np.ndarray], str, bool]:
    """Frames, damage, and whether anything was skipped.

    With ``skip``, what lies between two wanted frames of a long video is not decoded, up to the last key frame before
    the next.
    """
    pictures: dict[int, np.ndarray] = {}
    corrupt, skipped = [], False
    with _opened(path) as (container, log):
        stream = container.streams.video[0]
        frames, number = _frames(container, stream), -1
        for target in wanted:
            if info.times and skip:
                before = bisect_right(info.keyframes, info.times[target])
                if before and info.keyframes[before - 1] > info.times[max(number, 0)]:
                    container.seek(info.keyframes[before - 1], stream=stream, backward=True)
                    frames, skipped = _frames(container, stream), True
            for frame in frames:
                timed = info.times and frame.pts is not None
                number = bisect_left(info.times, frame.pts) if timed else number + 1
                if frame.is_corrupt:
                    corrupt.append(number)
                if number >= target:
                    break
            if number != target:
                raise VideoError(f"{path}: truncated, frame {target} of {info.frames} cannot be decoded")
            pictures[target] = info.orientation.apply(frame.to_ndarray(format="rgb24"))
        return pictures, _damage(corrupt, log), skipped


def _frames(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """The stream's frames from here on, by the decoder that tells damage best."""
    strict = _STRICT_DECODERS.get(stream.codec_context.name)
    if strict is None or strict not in av.codecs_available:
        yield from container.decode(stream)
        return
    decoder = av.CodecContext.create(strict, "r")
    decoder.thread_count = 1
    for packet in container.demux(stream):
        yield from decoder.decode(packet if packet.size else None)


def _damage(corrupt: list[int], log: list[tuple[int, str, str]]) -> str:
    errors = [message.strip() for level, _, message in log if level <= av.logging.ERROR]
    if not corrupt and not errors:
        return ""
    where = f"frame {corrupt[0]}, {len(corrupt)} in all" if corrupt else "no frame is marked"
    return f"damaged ({where}{'; decoder: ' + errors[0] if errors else ''})"


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
    video: Mapping[str, Any],
    image_patch_size: int = 14,
    info: VideoInfo | None = None,
    on_damage: Callable[[str], None] | None = None,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Frames of ``video`` as the model's processor takes them: uint8 [T, 3, height, width], and their metadata.

    ``.float()`` of the frames equals what ``qwen_vl_utils.fetch_video`` returns. Raises ``VideoError``;
    ``on_damage`` as in ``read_frames``.
    """
    frames, metadata, _ = read_frames(video, info, on_damage)
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as transforms

    size = frame_size(frames.shape[2], frames.shape[3], video, image_patch_size)
    # on bytes torchvision rounds and clamps the result, so nothing is lost by keeping bytes
    resized = transforms.resize(frames, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)
    return resized.contiguous(), metadata
