"""Videos and images that the rows name: there, whatever mixture of them the data is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

from .parquet_files import columns, tables
from .registry import check


@check(reads_files=True)
def check_media(config: DictConfig) -> list[str]:
    """Every file is there. Rows without a video train as well; how many there are is a note."""
    image_key, video_key = config.data.image_key, config.data.video_key
    notes = []
    there: set[str] = set()
    for what, path in tables(config):
        rows = columns(what, path, [image_key, video_key])
        for number, row in enumerate(rows):
            for kind, key in (("image", image_key), ("video", video_key)):
                for file in _files(kind, row[key] or ()):
                    # a path may be relative to the parquet file (video/paths.py)
                    if file not in there and not _is_file(file) and not _is_file(os.path.join(path.parent, file)):
                        raise FileNotFoundError(
                            f"{what}: row {number}: {kind} {file} is not there; `verl-twgrpo data check` lists them all"
                        )
                    there.add(file)
        without = sum(not row[video_key] for row in rows)
        if without:
            pictures = sum(not row[video_key] and bool(row[image_key]) for row in rows)
            notes.append(f"{what}: {without} of {len(rows)} rows without a video, {pictures} of them with images")
    return notes


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(path)
    except ValueError:  # a null byte
        return False


def _files(kind: str, entries: Any) -> Iterator[str]:
    """Local paths among a row's images or videos, in the forms that verl takes (verl/utils/dataset/vision_utils.py)."""
    for entry in entries if isinstance(entries, list | tuple) else (entries,):
        if isinstance(entry, dict):
            if entry.get("bytes") is not None:
                continue
            entry = entry.get(kind) or entry.get("path")
        # a video may be the list of its frames' files
        for file in entry if isinstance(entry, list) else (entry,):
            if isinstance(file, dict):
                file = file.get("image")
            if isinstance(file, str) and "://" not in file.removeprefix("file://") and not file.startswith("data:"):
                yield file.removeprefix("file://")
