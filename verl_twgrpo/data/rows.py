"""The rows of a parquet file as they are, and what keeps one from being used: field and reason, never a traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from verl_twgrpo.data.limits import FrameLimits
from verl_twgrpo.video.paths import is_relative, resolved

COLUMNS = ("data_source", "prompt", "videos", "ability", "reward_model", "extra_info")
IMAGE_FIELDS = ("image", "min_pixels", "max_pixels", "digest")
_KINDS = {str: "a text", int: "a whole number", bool: "true or false", Mapping: "an object", Sequence: "a list"}


def read_raw_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a parquet file, not looked at. A video path that is not absolute is taken from the file's folder.

    Raises ``ValueError`` naming the file if it cannot be read or lacks a column, ``FileNotFoundError`` if it is not
    there.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such file; `verl-twgrpo data convert` makes one")
    if os.path.isdir(path):
        raise ValueError(f"{path}: a folder; give a parquet file")
    try:
        names = pyarrow.parquet.read_schema(path).names
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise ValueError(
                f"{path}: column {', '.join(missing)} is missing; write it with `verl-twgrpo data convert`"
            )
        # files of videos alone have no images
        wanted = [*COLUMNS, *(("images",) if "images" in names else ())]
        rows = pyarrow.parquet.read_table(path, columns=wanted, partitioning=None).to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path}: not a parquet file that can be read ({_one_line(error)})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: a text in it is not UTF-8 ({error})") from None
    except OSError as error:
        raise OSError(f"{path}: cannot be read ({_one_line(error)})") from None
    folder = os.path.dirname(os.path.abspath(path))
    return [{**row, "videos": resolved(row["videos"], folder)} for row in rows]


def has_relative_videos(path: str | Path) -> bool:
    """Whether a parquet file, which can be read, names videos by paths from its own folder."""
    column = pyarrow.parquet.read_table(path, columns=["videos"], partitioning=None).column(0).to_pylist()
    entries = [video for videos in column if isinstance(videos, list) for video in videos]
    return any(isinstance(video, Mapping) and is_relative(video.get("video")) for video in entries)


def row_problem(row: Mapping[str, Any]) -> str:
    """The first field of the row that is not as ``to_row`` writes it, and why; "" if every one is."""
    try:
        _check(row)
    except ValueError as error:
        return str(error)
    return ""


def _check(row: Mapping[str, Any]) -> None:
    _need(row, "data_source", str)
    for k, message in enumerate(_need(row, "prompt", Sequence)):
        _need(message, f"prompt.{k}.role", str)
        _need(message, f"prompt.{k}.content", str)
    for k, video in enumerate(_need(row, "videos", Sequence)):
        path = _need(video, f"videos.{k}.video", str)
        if "\0" in path:
            raise ValueError(f"videos.{k}.video: {_shown(path)} cannot be a path")
        sizes = [_need(video, f"videos.{k}.{name}", int) for name in ("nframes", "max_pixels", "min_pixels")]
        try:
            FrameLimits(*sizes)
        except ValueError as error:
            raise ValueError(f"videos.{k}: {error}") from None
        if _need(video, f"videos.{k}.digest", str) and len(video["digest"]) != 64:
            raise ValueError(f"videos.{k}.digest: need a SHA-256 in hexadecimal digits, got {_shown(video['digest'])}")
    for k, image in enumerate(_need(row, "images", Sequence) if row.get("images") is not None else ()):
        _need(image, f"images.{k}.image", str)
        sizes = [_need(image, f"images.{k}.{name}", int) for name in ("min_pixels", "max_pixels")]
        if not 0 < sizes[0] <= sizes[1]:
            raise ValueError(f"images.{k}: min_pixels {sizes[0]}, max_pixels {sizes[1]}: need 0 < min <= max")
        _need(image, f"images.{k}.digest", str)
    _need(_need(row, "reward_model", Mapping), "reward_model.ground_truth", str)
    extra = _need(row, "extra_info", Mapping)
    for name in ("id", "split", "question", "question_type"):
        _need(extra, f"extra_info.{name}", str)
    _need(extra, "extra_info.negated", bool)
    if extra.get("task") is not None:  # a file of an earlier version has none
        _need(extra, "extra_info.task", str)
    if extra.get("decisive") is not None:
        for k, word in enumerate(_need(extra, "extra_info.decisive", Sequence)):
            _need({str(k): word}, f"extra_info.decisive.{k}", str)
    for k, option in enumerate(_need(extra, "extra_info.options", Sequence)):
        _need({str(k): option}, f"extra_info.options.{k}", str)
    try:
        provenance = json.loads(_need(extra, "extra_info.provenance", str))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"extra_info.provenance: not JSON ({_one_line(error)})") from None
    if not isinstance(provenance, dict):
        raise ValueError(f"extra_info.provenance: need a JSON object, got {_shown(provenance)}")


def _need(holder: Any, field: str, kind: type) -> Any:
    """The value called by the last part of ``field``, which has to be of ``kind``."""
    if not isinstance(holder, Mapping):
        raise ValueError(f"{field.rpartition('.')[0]}: need an object, got {_shown(holder)}")
    value = holder.get(field.rpartition(".")[2])
    right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if not right or (kind is Sequence and isinstance(value, str | bytes)):
        raise ValueError(f"{field}: need {_KINDS[kind]}, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__}, nested deep"
    return text if len(text) <= 60 else text[:57] + "..."


def _one_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
