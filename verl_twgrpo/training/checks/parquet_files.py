"""The local parquet files of a run, and columns of them: what several checks look at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as pq
from omegaconf import DictConfig, ListConfig

KEYS = ("train_files", "val_files")


def data_files(config: DictConfig) -> Iterator[tuple[str, Path]]:
    """("data.KEY=FILE", its path) of each data file; remote ones, which verl copies itself, are left out."""
    for key in KEYS:
        files = config.data.get(key)
        if files is None:
            raise ValueError(f"data.{key} is not set: give a parquet file that `verl-twgrpo data` wrote")
        for file in files if isinstance(files, list | ListConfig) else [files]:
            if "://" not in str(file):
                yield f"data.{key}={file}", Path(os.path.expanduser(str(file)))


def tables(config: DictConfig) -> Iterator[tuple[str, Path]]:
    """``data_files`` that are there and hold parquet; verl reads JSON as well, which is not checked."""
    seen = set()
    for what, path in data_files(config):
        if path.suffix == ".parquet" and path.is_file() and path not in seen:
            seen.add(path)
            yield what, path


def column_names(what: str, path: Path) -> list[str]:
    """Raises ``ValueError`` naming key and file if it is no parquet file."""
    try:
        return pq.read_schema(path).names
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{what}: it cannot be read as parquet ({_first_line(error)})") from None


def columns(what: str, path: Path, names: list[str]) -> list[dict[str, Any]]:
    """The rows with those of the columns ``names`` that the file has; others are None."""
    there = [name for name in names if name in column_names(what, path)]
    try:
        rows = pq.read_table(path, columns=there).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{what}: it cannot be read as parquet ({_first_line(error)})") from None
    return [dict.fromkeys(names) | row for row in rows]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
