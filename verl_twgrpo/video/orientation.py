"""Turn a decoded picture as its file says that it shall be shown: phones film lying down and write a display matrix."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import av
import numpy as np


@dataclass(frozen=True)
class Orientation:
    """Swap the axes, then mirror: every rotation by a multiple of 90 degrees, and every reflection, is of this form."""

    transposed: bool = False
    mirrored_x: bool = False
    mirrored_y: bool = False

    def apply(self, picture_HWC: np.ndarray) -> np.ndarray:
        """The picture as a player shows it."""
        if self.transposed:
            picture_HWC = picture_HWC.transpose(1, 0, 2)
        if self.mirrored_x:
            picture_HWC = picture_HWC[:, ::-1]
        return picture_HWC[::-1] if self.mirrored_y else picture_HWC


def orientation_of(frame: av.VideoFrame) -> Orientation | None:
    """What the frame's display matrix asks for; None for an angle that is no multiple of 90 degrees."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    # libavutil/display.h: x' = a x + c y, y' = b x + d y, y downwards
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
    if a and d and not b and not c:
        return Orientation(False, a < 0, d < 0)
    if b and c and not a and not d:
        return Orientation(True, c < 0, b < 0)
    return None
