"""From the folders of finished runs to CSV files, tables and figures: what the study commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from verl_twgrpo.evaluation.tables import csv_text
from verl_twgrpo.files import write_text
from verl_twgrpo.mini_clevrer.study import accuracy, comparisons, figures, page, scalars
from verl_twgrpo.mini_clevrer.study.arms import LABELS
from verl_twgrpo.mini_clevrer.study.runs import Study, read_study
from verl_twgrpo.report import style

COMMAND = "make study"
TABLES, LEARNING, ACCURACY, FOREST = "tables.md", "learning_curves.png", "accuracy.png", "forest.png"


@dataclass(frozen=True)
class RunRow:
    """A run: how long it took in seconds, what it was made with, and its overrides."""

    arm: str
    seed: int | None
    seconds: float
    versions: str
    overrides: str


def write_results(root: Path, out: Path) -> list[Path]:
    """Write every table and figure for which ``root/runs`` has data to ``out``; the paths that were written.

    CSV files: fractions of one, seconds, six digits; empty cells are missing values. Files of an earlier
    call are replaced, or removed where the data for them is gone.
    Raises ``ValueError`` or ``FileNotFoundError`` naming a file of the study that is missing or damaged.
    """
    study = read_study(root)
    rows: dict[str, tuple[type, list[Any]]] = {
        "runs.csv": (RunRow, run_rows(study)),
        "accuracy.csv": (accuracy.AccuracyRow, accuracy.accuracy_rows(study)),
        "summary.csv": (accuracy.SummaryRow, accuracy.summary_rows(study)),
        "differences.csv": (accuracy.DifferenceRow, accuracy.difference_rows(study)),
        "comparisons.csv": (comparisons.ComparisonRow, comparisons.comparison_rows(study)),
        "curves.csv": (scalars.CurveRow, scalars.curve_rows(study)),
        "timing.csv": (scalars.TimingRow, scalars.timing_rows(study)),
        "follows.csv": (scalars.FollowsRow, scalars.follows_rows(study)),
    }
    for name in (*rows, TABLES, LEARNING, ACCURACY, FOREST):
        (out / name).unlink(missing_ok=True)
    written = [
        _write(out / name, csv_text([field.name for field in fields(kind)], map(_cells, found)))
        for name, (kind, found) in rows.items()
        if found
    ]
    summary, curves = rows["summary.csv"][1], rows["curves.csv"][1]
    differences, compared = rows["differences.csv"][1], rows["comparisons.csv"][1]
    timing, follows = rows["timing.csv"][1], rows["follows.csv"][1]
    written.append(_write(out / TABLES, page.page(summary, differences, compared, timing, follows, COMMAND)))
    names = [f"{LABELS[arm]}: {len(study.of(arm))}" for arm in study.arms()]
    with style.look():
        drawn = {
            FOREST: figures.forest_figure(compared),
            LEARNING: figures.learning_figure(curves),
            ACCURACY: figures.accuracy_figure(summary),
        }
        for name, figure in drawn.items():
            if figure is not None:
                style.save(figure, out / name, [f"runs: {', '.join(names) or 'none'}"], COMMAND)
                written.append(out / name)
    return written


def run_rows(study: Study) -> list[RunRow]:
    """Every finished run with what its record says."""
    return [
        RunRow(
            run.arm,
            run.seed,
            run.record["seconds"],
            " ".join(f"{name}=={number}" for name, number in run.record.get("versions", {}).items()),
            " ".join(run.record.get("overrides", [])),
        )
        for run in study.runs
    ]


def _cells(row: Any) -> Sequence[object]:
    return [f"{value:.6g}" if isinstance(value, float) else value for value in astuple(row)]


def _write(path: Path, text: str) -> Path:
    write_text(path, text)
    return path
