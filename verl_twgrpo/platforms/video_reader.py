"""A video reader for qwen-vl-utils that is always there: PyAV, whose wheel brings its own FFmpeg.

qwen-vl-utils takes torchcodec as soon as it is installed, and torchvision's reader if that fails. torchcodec needs FFmpeg's
(and in newer wheels CUDA's) libraries on the machine, and torchvision has no reader any more.
"""

from __future__ import annotations

import os
from functools import cache
from types import ModuleType

import torchvision
import wrapt

NAME = "pyav"


def offer_pyav(vision_process: ModuleType) -> None:
    """Add our reader to qwen_vl_utils/vision_process.py, and choose it where the one that would be chosen cannot read."""
    from verl_twgrpo.data.video import read_frames

    vision_process.VIDEO_READER_BACKENDS[NAME] = read_frames

    @cache
    def only_reader() -> str | None:
        if os.environ.get("FORCE_QWENVL_VIDEO_READER") or vision_process.is_decord_available():
            return None
        if vision_process.is_torchcodec_available():
            return None if _torchcodec_loads() else NAME
        return None if hasattr(torchvision.io, "read_video") else NAME

    def choose(wrapped, instance, args, kwargs) -> str:
        return only_reader() or wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(vision_process, "get_video_reader_backend", choose)


def _torchcodec_loads() -> bool:
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def reader_in_use() -> str:
    """The reader that videos will be decoded with: "torchcodec", "decord", "torchvision" or "pyav"."""
    from qwen_vl_utils import vision_process

    return vision_process.get_video_reader_backend()
