"""Annotation files in, rows out: JSON, JSON lines, parquet, lines of text, or a data set of the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Unreadable:
    """A row that is none, and why."""

    reason: str


def read_annotations(annotations: str, split: str) -> Iterator[tuple[str, dict[str, Any] | Unreadable]]:
    """Each row of ``annotations`` and where it stands ("file: row 3"), counted from 0.

    ``annotations`` is a local .json, .jsonl or .parquet file, a .txt file (rows {"line": ..}), or else a hub name,
    "owner/name" or "owner/name:config", of which ``split`` is read. A byte-order mark and CRLF line ends do no harm; a
    .json file may hold JSON lines. The entries of a JSON object of objects are the rows {"key": .., "value": ..}.
    Raises ``ValueError`` naming file and line if a file cannot be read as what it says it is; a line of JSON lines that
    is no object is ``Unreadable``, and the others are read.
    """
    path = Path(annotations)
    if path.is_file():
        rows = _READERS.get(path.suffix.lower(), _unknown)(path)
        where = str(path)
    # a name in a folder that is there is a slip, which the hub would take half a minute to say
    elif path.suffix or path.exists() or annotations.count("/") != 1 or path.parent.is_dir():
        raise FileNotFoundError(f"{annotations}: no such annotation file")
    else:
        rows = _read_hub(annotations, split)
        where = f"{annotations} ({split})"
    for number, row in enumerate(rows):
        if not isinstance(row, dict | Unreadable):
            row = Unreadable(f"need an object with named fields, got {type(row).__name__}")
        yield f"{where}: row {number}", row


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not UTF-8 text (byte {error.start} is {error.object[error.start]:#04x}); convert its encoding"
        ) from None


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise json.JSONDecodeError("nested too deep", text, 0) from None


def _read_json(path: Path) -> list[Any]:
    text = _text(path)
    try:
        whole = _parse(text)
    except json.JSONDecodeError as error:
        # JSON lines under the name .json: the first line is a whole value and something follows
        if error.msg == "Extra data":
            return list(_parse_lines(text))
        raise ValueError(f"{path}: line {error.lineno}: not JSON ({error.msg})") from None
    if isinstance(whole, dict) and all(isinstance(value, dict) for value in whole.values()):
        return [{"key": key, "value": value} for key, value in whole.items()]
    if isinstance(whole, dict) and len(whole) == 1 and isinstance(next(iter(whole.values())), list):
        raise ValueError(f"{path}: one object whose {next(iter(whole))!r} is a list; need the list itself")
    return whole if isinstance(whole, list) else [whole]  # a single row


def _read_json_lines(path: Path) -> Iterator[Any]:
    lines = list(_parse_lines(_text(path)))
    if lines and all(isinstance(line, Unreadable) for line in lines):
        raise ValueError(f"{path}: {lines[0].reason}")
    return iter(lines)


def _parse_lines(text: str) -> Iterator[Any]:
    # not splitlines(): it also splits at separators that JSON allows inside a text, such as U+2028
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield _parse(line)
        except json.JSONDecodeError as error:
            yield Unreadable(f"line {number}: not JSON ({error.msg})")


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path}: not a parquet file that can be read ({error})") from None


def _read_hub(name: str, split: str) -> Iterator[dict[str, Any]]:
    import datasets

    repository, _, config = name.partition(":")
    try:
        return iter(datasets.load_dataset(repository, config or None, split=split))
    except Exception as error:  # of many kinds: no such data set, no network, no such split
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{name}: no such file here, and not to be had from the hub ({reason})") from None


def _unknown(path: Path) -> list[Any]:
    raise ValueError(f"{path}: need a .json, .jsonl or .parquet file")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [{"line": line} for line in _text(path).splitlines() if line.strip()]


_READERS = {".json": _read_json, ".jsonl": _read_json_lines, ".parquet": _read_parquet, ".txt": _read_lines}
