"""The digest that tells whether a video is still the one that a data set was made from."""

from __future__ import annotations

import hashlib
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


def video_digests(paths: Iterable[str], workers: int) -> dict[str, str]:
    """The digest of each file that exists, read by ``workers`` threads (hashing lets go of the interpreter's lock)."""
    present = sorted({path for path in paths if Path(path).is_file()})
    with ThreadPoolExecutor(workers) as pool:
        found = tqdm(pool.map(video_digest, present), total=len(present), desc="digests", unit="video", disable=None)
        return dict(zip(present, found, strict=True))
