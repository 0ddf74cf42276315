"""A video reader for qwen-vl-utils that is always there: PyAV, whose wheel brings its own FFmpeg.

qwen-vl-utils takes torchcodec as soon as it is installed, and torchvision's reader if that fails. torchcodec needs
FFmpeg's (and in newer wheels CUDA's) libraries on the machine, and torchvision has no reader any more.
"""

from __future__ import annotations

import os
from types import ModuleType

import torchvision

NAME = "pyav"


def offer_pyav(vision_process: ModuleType) -> None:
    """Add our reader to qwen_vl_utils/vision_process.py; choose it where the one it would choose cannot read."""
    from verl_twgrpo.video.decode import read_frames

    vision_process.VIDEO_READER_BACKENDS[NAME] = read_frames
    # Decided now, in the one thread that imports the module: videos are read by many, and of two threads that try to
    # import a broken package at once, one may be handed half of it.
    if _needs_pyav(vision_process):
        vision_process.get_video_reader_backend = lambda: NAME


def _needs_pyav(vision_process: ModuleType) -> bool:
    if os.environ.get("FORCE_QWENVL_VIDEO_READER"):
        return False
    if vision_process.is_torchcodec_available():
        return not _torchcodec_loads()
    return not vision_process.is_decord_available() and not hasattr(torchvision.io, "read_video")


def _torchcodec_loads() -> bool:
    try:
        from torchcodec.decoders import VideoDecoder  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def reader_in_use() -> str:
    """The reader that videos will be decoded with: "torchcodec", "decord", "torchvision" or "pyav"."""
    from qwen_vl_utils import vision_process

    return vision_process.get_video_reader_backend()
