"""Files that appear whole or not at all, and are not overwritten unasked."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_csv(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows that have the columns of the first, whole or not at all; without a row, an empty file."""
    out = io.StringIO()
    rows = list(rows)
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_text(path, out.getvalue())


def ensure_absent(paths: Iterable[str | Path], force: bool) -> None:
    """Raise ``FileExistsError`` for the first path that is there, unless ``force``."""
    for path in paths:
        if not force and Path(path).exists():
            raise FileExistsError(f"{path} exists; give --force to overwrite it")


def ensure_same_settings(made_of: str | Path, made: Any, wanted: Any) -> None:
    """Raise ``ValueError`` with what differs if ``made_of`` was made with other settings than those wanted.

    Settings are a mapping by name, or a list of words.
    """
    if made == wanted:
        return
    if isinstance(made, dict) and isinstance(wanted, dict):
        names = [name for name in {**wanted, **made} if made.get(name, ...) != wanted.get(name, ...)]
    else:
        names = sorted(set(made) ^ set(wanted))
    raise ValueError(f"{made_of} was made with other settings ({', '.join(names)}); remove it or give another --out")
