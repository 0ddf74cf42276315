"""Read what models wrote: verl's validation dumps, or logs in the form that the paper's authors released."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from verl_twgrpo.rewards import TASKS, read_truth, task_of
from verl_twgrpo.rewards.answers import LETTERS
from verl_twgrpo.rewards.routing import DEFAULT_TASK as MULTIPLE_CHOICE
from verl_twgrpo.rewards.truth import option_letters

# as they stand in file names of released logs, and the name of the source that they are
BENCHMARK_IN_NAME = {
    "mini_clevrer": "mini_clevrer",
    "clevrer": "clevrer",
    "nextgqa": "nextgqa",
    "nextqa": "nextgqa",
    "star": "star",
    "mmvu": "mmvu",
    "mvbench": "mvbench",
    "tempcompass": "tempcompass",
    "videomme": "videomme",
}
UNKNOWN = "unknown"
"""The benchmark of a dump from another reward than ours: verl's own word for a row without a data source."""


@dataclass(frozen=True)
class Prediction:
    """What one model wrote to one question.

    id: the problem's id in its benchmark, None where the file has none. where: file and line. stored: the exact
    accuracy that the file holds, None where it holds none. truth: the true letters, or what another task than multiple
    choice reads from its truth.
    """

    benchmark: str
    id: str | None
    truth: Any
    text: str
    where: str
    stored: float | None
    task: str = MULTIPLE_CHOICE


@dataclass
class Predictions:
    """One model's predictions: one a problem. unreadable: file, line and reason. duplicates: how many, by benchmark."""

    rows: list[Prediction] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    duplicates: Counter[str] = field(default_factory=Counter)


def read_predictions(paths: Iterable[str | Path]) -> Predictions:
    """Read JSON-lines files as the predictions of one model; of several rows with one problem's id the first counts.

    Rows are verl's (``output``, ``gts``, and ``id``, ``benchmark`` and ``task`` from the reward manager) or as
    released (``question.problem_id``, ``ground_truth``, ``model_output``; the benchmark is in the file's name).
    A row that cannot be read is left out and named.
    Raises ``ValueError`` if no row can be read, or if verl's dumps of different steps are mixed.
    """
    found = Predictions()
    seen: set[tuple[str, str | None]] = set()
    steps: dict[Any, Path] = {}
    for path in map(Path, paths):
        # not splitlines(): it also splits at separators that JSON allows inside a text, such as U+2028
        lines = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
        for number, line in enumerate(tqdm(lines, desc=path.name, unit="row", disable=None, leave=False), start=1):
            if not line.strip():
                continue
            where = f"{path}: line {number}"
            try:
                row = json.loads(line)
                prediction = _read_row(row, path, where)
            except ValueError as error:
                reason = f"{where}: not JSON ({error.msg})" if isinstance(error, json.JSONDecodeError) else str(error)
                found.unreadable.append(reason)
                continue
            except RecursionError:
                found.unreadable.append(f"{where}: not JSON (nested too deep)")
                continue
            if "model_output" not in row:
                steps.setdefault(row.get("step"), path)
            if prediction.id is not None and (prediction.benchmark, prediction.id) in seen:
                found.duplicates[prediction.benchmark] += 1
                continue
            seen.add((prediction.benchmark, prediction.id))
            found.rows.append(prediction)
    if len(steps) > 1:
        listed = ", ".join(f"step {step} in {path}" for step, path in steps.items())
        raise ValueError(f"these are predictions of different models: {listed}; evaluate one step at a time")
    if not found.rows:
        first = f" (first reason: {found.unreadable[0]})" if found.unreadable else ""
        raise ValueError(f"{', '.join(map(str, paths))}: no readable row{first}")
    return found


def _read_row(row: Any, path: Path, where: str) -> Prediction:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: need an object with named fields, got {type(row).__name__}")
    if "model_output" in row:
        return _read_released(row, path, where)
    if "output" in row and "gts" in row:
        return _read_verl(row, where)
    raise ValueError(
        f"{where}: neither a row of verl's dump (output, gts) nor a released one (model_output, ground_truth);"
        f" it has {', '.join(sorted(map(str, row))) or 'no field'}"
    )


def _read_verl(row: Mapping[str, Any], where: str) -> Prediction:
    if isinstance(row.get("step"), list | dict):
        raise ValueError(f"{where}: step is a {type(row['step']).__name__}, need a number")
    task = str(task_of(row))
    if task not in TASKS:
        raise ValueError(f"{where}: task {task!r:.60} is none of {', '.join(sorted(TASKS))}")
    letters = task == MULTIPLE_CHOICE
    return Prediction(
        benchmark=str(row.get("benchmark") or UNKNOWN),
        id=_as_id(row.get("id")),
        truth=read_truth(row["gts"], LETTERS, where) if letters else TASKS[task].read_truth(row["gts"], {}, where),
        text=_as_text(row["output"], "output", where),
        where=where,
        stored=_as_score(row.get("accuracy")),
        task=task,
    )


def _read_released(row: Mapping[str, Any], path: Path, where: str) -> Prediction:
    question = row.get("question")
    question = question if isinstance(question, dict) else {}
    options = question.get("options")
    letters = option_letters(options, where) if isinstance(options, list) else LETTERS
    truth: Any = row.get("ground_truth")
    return Prediction(
        benchmark=_benchmark_of(path),
        id=_as_id(question.get("problem_id")),
        truth=read_truth(truth, letters, where),
        text=_as_text(row["model_output"], "model_output", where),
        where=where,
        stored=_as_score(row.get("accuracy_score")),
    )


def _benchmark_of(path: Path) -> str:
    """The benchmark that a file's name names, or else the name itself."""
    name = path.stem.lower()
    return next((benchmark for part, benchmark in BENCHMARK_IN_NAME.items() if part in name), path.stem)


def _as_id(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _as_text(value: Any, field_name: str, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: {field_name} is a {type(value).__name__}, need text")
    return value


def _as_score(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
