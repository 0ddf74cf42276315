"""Keep what a processor makes of cached frames with the frames."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
import wrapt
from torch.utils.weak import WeakIdKeyDictionary

# Frames that were handed out -> what processors made of them, by processor and settings; as long as the frames live.
_prepared: WeakIdKeyDictionary = WeakIdKeyDictionary()

_lock = threading.Lock()

# The cache's bytes -> the floats that are handed out.
_floats: WeakIdKeyDictionary = WeakIdKeyDictionary()

# Frames that were handed out -> an order, and the frames in it.
_reordered: WeakIdKeyDictionary = WeakIdKeyDictionary()

Frames = tuple[torch.Tensor, dict[str, Any]]


def shared_frames(get: Callable[[dict[str, Any]], Frames], video: dict[str, Any]) -> Frames:
    """Float frames and metadata of a video; from now on what a processor makes of these frames is kept with them.

    ``get`` gives the same bytes for the same video as long as it keeps them; so does this. Processors that resize once
    more round bytes but not floats, and stock verl hands them floats.
    """
    bytes_TCHW, metadata = get(video)
    with _lock:
        if bytes_TCHW not in _floats:
            _floats[bytes_TCHW] = bytes_TCHW.float()
            _prepared[_floats[bytes_TCHW]] = ({}, threading.Lock())
        return _floats[bytes_TCHW], metadata


def reordered_frames(frames_TCHW: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """Frames in another order; of frames that were handed out the last order is kept, and shared like them."""
    key = tuple(order)
    with _lock:
        if frames_TCHW not in _prepared:
            return frames_TCHW[list(order)]
        kept = _reordered.get(frames_TCHW)
        if kept is None or kept[0] != key:
            kept = key, frames_TCHW[list(order)]
            _reordered[frames_TCHW] = kept
            _prepared[kept[1]] = ({}, threading.Lock())
        return kept[1]


def share_preparation(video_processing: ModuleType) -> None:
    """Wrap transformers' video processors: frames that were handed out are prepared once for equal settings."""

    def prepare(wrapped, instance, args, kwargs):
        videos = args[0] if args else kwargs.get("videos")
        if not isinstance(videos, list | tuple) or len(videos) != 1 or len(args) > 1:
            return wrapped(*args, **kwargs)
        kept = _prepared.get(videos[0]) if isinstance(videos[0], torch.Tensor) else None
        if kept is None:
            return wrapped(*args, **kwargs)
        made, lock = kept
        settings = (id(instance), repr(sorted((k, v) for k, v in kwargs.items() if k != "videos")))
        with lock:  # the rollouts of a prompt come at once
            if settings not in made:
                made[settings] = wrapped(*args, **kwargs)
        # callers take entries out of what they get
        return type(made[settings])(data=dict(made[settings].data))

    wrapt.wrap_function_wrapper(video_processing, "BaseVideoProcessor.__call__", prepare)
