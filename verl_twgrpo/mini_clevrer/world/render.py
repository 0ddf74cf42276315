"""A world as frames and as an mp4 file."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np

from verl_twgrpo.files import atomic_write
from verl_twgrpo.mini_clevrer.world.physics import DURATION, World, simulate

FRAMES = 8
SIZE = 56  # pixels a side: 2 x 2 visual tokens of Qwen2.5-VL
FRAMES_PER_SECOND = 4

_BACKGROUND = (128, 128, 128)
_RGB = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 70, 230),
    "yellow": (240, 220, 50),
    "purple": (150, 40, 170),
    "cyan": (60, 220, 230),
}


def frames(world: World) -> np.ndarray:
    """What the camera sees: uint8 [FRAMES, SIZE, SIZE, 3], evenly spaced over the whole duration."""
    motion = simulate(world)
    centres = (np.arange(SIZE) + 0.5) / SIZE
    reach = math.ceil((world.radius + 1 / SIZE) * SIZE)
    video = np.empty((FRAMES, SIZE, SIZE, 3))
    video[:] = _BACKGROUND
    for frame, time in zip(video, np.linspace(0, DURATION, FRAMES), strict=True):
        for i, (x, y) in motion.positions(float(time)).items():
            body = world.bodies[i]
            columns, rows = (slice(max(0, int(c * SIZE) - reach), int(c * SIZE) + reach + 1) for c in (x, y))
            across, down = np.abs(centres[columns] - x)[None, :], np.abs(centres[rows] - y)[:, None]
            if body.shape == "circle":
                inside = world.radius - np.hypot(across, down)
            else:
                # a square of the disc's area: its sides meet others about where the disc does
                inside = world.radius * math.sqrt(math.pi) / 2 - np.maximum(across, down)
            cover = np.clip(0.5 + inside * SIZE, 0, 1)[..., None]
            part = frame[rows, columns]
            part += cover * (_RGB[body.colour] - part)
    return video.round().astype(np.uint8)


def write_mp4(video: np.ndarray, path: Path) -> None:
    """Write uint8 [T, H, W, 3] frames as H.264; the same frames always give the same bytes."""
    # x264's look-ahead is not reproducible on frames this small, so the settings leave it out
    options = {"qp": "10", "preset": "ultrafast", "tune": "zerolatency", "threads": "1"}
    with atomic_write(path) as part, av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=FRAMES_PER_SECOND, options=options)
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
