"""Video paths that are relative to the parquet file that holds them, so that a folder with both can be moved."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any, TypeGuard


def resolved(videos: Any, folder: str) -> Any:
    """The ``videos`` of a row with their relative paths taken from ``folder``; what is of another form stays."""
    if not isinstance(videos, list):
        return videos
    return [_resolved(video, folder) for video in videos]


def _resolved(video: Any, folder: str) -> Any:
    path = video.get("video") if isinstance(video, Mapping) else None
    return {**video, "video": os.path.join(folder, path)} if is_relative(path) else video


def is_relative(path: Any) -> TypeGuard[str]:
    """Whether a video's path is one of the file system, and not absolute."""
    return isinstance(path, str) and "://" not in path and not os.path.isabs(path)


def resolve_in_verls_datasets(rl_dataset: Any) -> None:
    """Let verl/utils/dataset/rl_dataset.py, which reads parquet files by ``datasets.load_dataset``, see whole paths.

    A path that is there as it stands, from the working directory, is left as it is: that is what verl takes it for.
    """
    rl_dataset.datasets = _Datasets(rl_dataset.datasets)


class _Datasets:
    """The module ``datasets``, with another ``load_dataset``."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def load_dataset(self, kind: str, *args: Any, **options: Any) -> Any:
        loaded = self._module.load_dataset(kind, *args, **options)
        file = options.get("data_files")
        if kind != "parquet" or not isinstance(file, str):
            return loaded
        folder = os.path.dirname(os.path.abspath(file))
        return {split: _resolve_all(rows, folder) for split, rows in loaded.items()}


def _resolve_all(rows: Any, folder: str) -> Any:
    if "videos" not in rows.column_names or not any(_moves(videos) for videos in rows["videos"]):
        return rows
    return rows.map(lambda row: {"videos": resolved(row["videos"], folder)}, features=rows.features)


def _moves(videos: Any) -> bool:
    paths = [video.get("video") for video in videos or () if isinstance(video, Mapping)]
    return any(is_relative(path) and not os.path.isfile(path) for path in paths)
