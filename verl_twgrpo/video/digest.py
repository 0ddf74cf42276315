"""The digest that tells whether a video is still the one that a data set was made from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from verl_twgrpo.progress import progress

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


def video_digests(paths: Iterable[str], workers: int) -> tuple[dict[str, str], dict[str, str]]:
    """The digest of each file that can be read, and of each other one the reason why not.

    Read by ``workers`` threads: hashing lets go of the interpreter's lock.
    """
    different = sorted(set(paths))
    with ThreadPoolExecutor(workers) as pool:
        results = progress(pool.map(_digest_or_reason, different), len(different), "digests", "video")
        found = dict(zip(different, results, strict=True))
    digests = {path: digest for path, (digest, _) in found.items() if digest}
    return digests, {path: reason for path, (digest, reason) in found.items() if not digest}


def _digest_or_reason(path: str) -> tuple[str, str]:
    try:
        return known_digest(path), ""
    except FileNotFoundError:
        return "", "no such video"
    except (OSError, ValueError) as error:  # ValueError: a null byte in a name
        return "", f"cannot be read ({getattr(error, 'strerror', None) or error})"
