"""Hold some rows of a file out, by their videos: no video is on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any


def hold_out(rows: Sequence[dict[str, Any]], count: int, seed: int) -> tuple[list[dict], list[dict]]:
    """The rows to train on, and at least ``count`` that are held out: all rows of as many videos as that takes.

    Videos are drawn by a hash of their digest and the seed: the same ones whatever the order of the rows.

    Raises:
        ValueError: nothing would be left to train on, or a count below 1.
    """
    if count < 1:
        raise ValueError(f"--hold-out {count}: need 1 row or more")
    by_video: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        by_video.setdefault(_video(row), []).append(number)
    held: set[int] = set()
    for video in sorted(by_video, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest()):
        if len(held) >= count:
            break
        held |= set(by_video[video])
    if len(held) == len(rows):
        raise ValueError(f"--hold-out {count}: of {len(rows)} rows on {len(by_video)} videos none would be left")
    return [row for k, row in enumerate(rows) if k not in held], [row for k, row in enumerate(rows) if k in held]


def _video(row: dict[str, Any]) -> str:
    return " ".join(str(video.get("digest") or video.get("video") or video.get("image")) for video in _media(row))


def _media(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [*(row.get("videos") or ()), *(row.get("images") or ())]
