"""The questions of a run by their ids, from the parquet files that it was trained and validated on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet


@dataclass(frozen=True)
class Question:
    """What a data file says of one question. kind: as its benchmark calls it, "" if it does not."""

    id: str
    text: str
    options: list[str]
    kind: str
    source: str
    videos: list[dict[str, Any]]


def read_questions(files: Iterable[str | Path]) -> tuple[dict[str, Question], list[str]]:
    """The questions of files as ``verl-twgrpo data`` writes them, and one sentence for each that cannot be read."""
    found: dict[str, Question] = {}
    missing = []
    for file in dict.fromkeys(map(str, files)):
        try:
            columns = set(pyarrow.parquet.read_schema(file).names) & {"extra_info", "videos", "data_source"}
            rows = pyarrow.parquet.read_table(file, columns=sorted(columns)).to_pylist()
        except (OSError, pyarrow.ArrowInvalid) as error:
            missing.append(f"{file}: questions and videos could not be read ({str(error).splitlines()[0]})")
            continue
        for row in rows:
            question = _question(row)
            if question is not None:
                found.setdefault(question.id, question)
    return found, missing


def _question(row: Mapping[str, Any]) -> Question | None:
    info = row.get("extra_info")
    if not isinstance(info, dict) or not info.get("id"):
        return None
    options = info.get("options")
    return Question(
        id=str(info["id"]),
        text=str(info.get("question") or ""),
        options=[str(option) for option in options] if isinstance(options, list) else [],
        kind=str(info.get("question_type") or ""),
        source=str(row.get("data_source") or ""),
        videos=[{k: v for k, v in video.items() if v is not None} for video in row.get("videos") or ()],
    )
