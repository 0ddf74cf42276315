"""Files that appear whole or not at all, and are not overwritten unasked."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A path to write to, which becomes ``path`` when the block ends well and vanishes when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def ensure_absent(paths: Iterable[str | Path], force: bool) -> None:
    """Raise ``FileExistsError`` for the first path that is there, unless ``force``."""
    for path in paths:
        if not force and Path(path).exists():
            raise FileExistsError(f"{path} exists; give --force to overwrite it")
