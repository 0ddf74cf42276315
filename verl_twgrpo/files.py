"""Files that appear whole or not at all, and are not overwritten unasked."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A path to write to, which becomes ``path`` when the block ends well and vanishes when it does not."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; give the name of a file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, part, str(part)):
            raise
        # a write that fails, as on a full disk, names no file
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def ensure_absent(paths: Iterable[str | Path], force: bool) -> None:
    """Raise ``FileExistsError`` for the first path that is there, unless ``force``."""
    for path in paths:
        if not force and Path(path).exists():
            raise FileExistsError(f"{path} exists; give --force to overwrite it")
