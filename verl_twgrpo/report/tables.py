"""Tables of a report: one in the shape of Table 3, and one of every score that a reward logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from verl_twgrpo.evaluation import Measure, Score, title
from verl_twgrpo.evaluation.tables import csv_text, markdown, percent

from .reading import SCORES, Run

Scores = Mapping[str, Mapping[str, Score]]
"""benchmark -> "single", "multiple" or "all" -> score, as ``evaluation.evaluate`` returns them."""

# (questions, metric, title): Table 3 gives soft accuracy where it can differ from the strict one
COLUMNS = (
    ("single", "strict", "single acc"),
    ("multiple", "strict", "multiple acc"),
    ("multiple", "soft", "multiple soft"),
    ("all", "strict", "all acc"),
    ("all", "soft", "all soft"),
)
SINGLE_ANSWER_COLUMNS = (("all", "strict", "acc"),)


def table3(results: Mapping[str, tuple[int, Scores]]) -> tuple[str, str]:
    """The table as Markdown (percentages with their 95% intervals) and as CSV (fractions, bounds and counts).

    results: run -> (step, scores). A benchmark on which no run has multiple-answer questions gets one column, as MMVU
    in the paper.
    """
    columns = [(benchmark, *column) for benchmark in _benchmarks(results) for column in _columns(benchmark, results)]
    header = ["run", "step", *(f"{benchmark} {heading} %" for benchmark, _, _, heading in columns)]
    rows = [
        [run, step, *(_cell(scores.get(name, {}).get(kind), metric) for name, kind, metric, _ in columns)]
        for run, (step, scores) in results.items()
    ]
    parts = ("", "_low", "_high")
    csv_header = ["run", "step"]
    for benchmark, _, _, heading in columns:
        csv_header += [f"{benchmark} {heading}{part}" for part in (*parts, "_n")]
    csv_rows = []
    for run, (step, scores) in results.items():
        cells: list[object] = [run, step]
        for name, kind, metric, _ in columns:
            score = scores.get(name, {}).get(kind)
            cells += [""] * 4 if score is None else [*(getattr(score, metric + part) for part in parts), score.n]
        csv_rows.append(cells)
    return markdown(header, rows), csv_text(csv_header, csv_rows)


def task_table(runs: Mapping[str, Mapping[tuple[str, str, str], Mapping[int, Measure]]]) -> tuple[str, str]:
    """Every measure of every task at a run's first and last validation: as Markdown, and all validations as CSV.

    runs: run -> (data source, task, measure) -> step -> measure.
    """
    rows, csv_rows = [], []
    for source, task, name in dict.fromkeys(key for measures in runs.values() for key in measures):
        cells = []
        for run, measures in runs.items():
            by_step = measures.get((source, task, name), {})
            cells.append(" → ".join(_measured(step, by_step[step]) for step in _ends(by_step)) or "–")
            for step, one in by_step.items():
                csv_rows.append([run, step, source, task, title(task, name), one.n, one.mean, one.low, one.high])
        rows.append([source, task, title(task, name), *cells])
    header = ["run", "step", "data source", "task", "measure", "n", "mean", "low", "high"]
    return markdown(["data source", "task", "measure", *runs], rows), csv_text(header, csv_rows)


def score_table(runs: Sequence[Run]) -> str:
    """Every logged score by data source and task at the first and the last step, as Markdown; "" if there is none."""
    names = sorted({name for run in runs for name in run.scalars if name.startswith(SCORES)})
    rows = []
    for name in names:
        source, task, score = name.removeprefix(SCORES).rsplit("/", 2)
        cells = [list(run.scalars.get(name, {}).values()) for run in runs]
        rows.append([source, task, score, *(f"{cell[0]:.3g} → {cell[-1]:.3g}" if cell else "–" for cell in cells)])
    return markdown(["data source", "task", "score", *(run.label for run in runs)], rows) if rows else ""


def _ends(steps: Mapping[int, object]) -> list[int]:
    return sorted({min(steps), max(steps)}) if steps else []


def _measured(step: int, measure: Measure) -> str:
    return f"step {step}: {measure.mean:.3f} [{measure.low:.3f}, {measure.high:.3f}], n = {measure.n}"


def _benchmarks(results: Mapping[str, tuple[int, Scores]]) -> list[str]:
    return sorted({benchmark for _, scores in results.values() for benchmark in scores})


def _columns(benchmark: str, results: Mapping[str, tuple[int, Scores]]) -> tuple[tuple[str, str, str], ...]:
    multiple = any("multiple" in scores.get(benchmark, {}) for _, scores in results.values())
    return COLUMNS if multiple else SINGLE_ANSWER_COLUMNS


def _cell(score: Score | None, metric: str) -> str:
    if score is None:
        return "–"
    return percent(*(getattr(score, metric + part) for part in ("", "_low", "_high")))
