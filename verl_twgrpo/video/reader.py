"""The video reader for qwen-vl-utils: PyAV, whose wheel brings its own FFmpeg, with this package's checks.

qwen-vl-utils takes torchcodec as soon as it is installed, which needs FFmpeg's (and in newer wheels CUDA's) libraries
on the machine and decodes a damaged video without a word. Ours is taken instead, so that frames are the same with and
without a frame cache. ``FORCE_QWENVL_VIDEO_READER=torchcodec`` (qwen-vl-utils' own variable) takes another.
"""

from __future__ import annotations

import os
from typing import Any

NAME = "pyav"


def offer_pyav(vision_process: Any) -> None:
    """Add our reader to qwen_vl_utils/vision_process.py, and choose it unless another one is forced."""
    from verl_twgrpo.video.decode import read_frames

    readers = vision_process.VIDEO_READER_BACKENDS
    readers[NAME] = read_frames
    # Decided now, in the one thread that imports the module: videos are read by many, and of two threads that try to
    # import a broken package at once, one may be handed half of it.
    if os.environ.get("FORCE_QWENVL_VIDEO_READER", NAME) == NAME:
        vision_process.get_video_reader_backend = lambda: NAME
        # fetch_video answers every error with one more try by "torchvision", which would take what ours refused
        readers["torchvision"] = read_frames


def reader_in_use() -> str:
    """The reader that videos will be decoded with: "pyav", "torchcodec", "decord" or "torchvision"."""
    from qwen_vl_utils import vision_process

    return vision_process.get_video_reader_backend()
