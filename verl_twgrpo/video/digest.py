"""The digest that tells whether a video is still the one that a data set was made from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

_BLOCK = 1 << 20


def video_digest(path: str | Path) -> str:
    """SHA-256 of the file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


_known: dict[tuple[str, int, int], str] = {}


def known_digest(path: str | Path) -> str:
    """``video_digest``, computed once per process for a file of this size and age."""
    stat = os.stat(path)
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    if key not in _known:
        _known[key] = video_digest(path)
    return _known[key]


def video_digests(paths: Iterable[str], workers: int) -> dict[str, str]:
    """The digest of each file that exists, read by ``workers`` threads (hashing lets go of the interpreter's lock)."""
    present = sorted({path for path in paths if Path(path).is_file()})
    with ThreadPoolExecutor(workers) as pool:
        found = tqdm(pool.map(video_digest, present), total=len(present), desc="digests", unit="video", disable=None)
        return dict(zip(present, found, strict=True))
