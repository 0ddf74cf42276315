"""``verl-twgrpo eval``: the paper's accuracies, and the measures of other tasks, with intervals."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from verl_twgrpo.files import ensure_absent, write_json
from verl_twgrpo.rewards import mixture_from_words
from verl_twgrpo.rewards.answers import leniency_names

from .metrics import PARSER_RULES, Comparison, Score, compare, evaluate, stored_deviations
from .predictions import Predictions, read_predictions
from .tables import markdown, percent, signed_percent
from .tasks import (
    ScoredRow,
    TaskComparison,
    TaskScore,
    compare_tasks,
    evaluate_tasks,
    score_rows,
    task_deviations,
    title,
)

LISTED = 20
"""How many rows a list on the screen names; the JSON file names all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Files of one model, and of a baseline."""
    parser.description = (
        "Strict and soft accuracy (Eq. 7) by benchmark and number of true answers, with 95% intervals (Wilson for"
        " strict, bootstrap for soft); for rows of other tasks (docs/tasks.md) all that they measure: mIoU, R@0.5,"
        " Acc@GQA, MRA, WER. Exit code 1 if some rows could not be read."
    )
    parser.add_argument(
        "predictions",
        nargs="+",
        metavar="PREDICTIONS",
        help="one model's .jsonl files (verl's validation dumps of one step, or released logs)",
    )
    parser.add_argument(
        "--baseline", nargs="+", metavar="PREDICTIONS", help="another model's .jsonl files, compared problem by problem"
    )
    parser.add_argument("--json", metavar="F", help="write every number to this file as well")
    parser.add_argument(
        "--lenient",
        default=",".join(PARSER_RULES),
        metavar="RULES",
        help="what to read beside <answer>A,C</answer>, alike for all models: rule names with commas, 'all' or 'none'"
        " (default: %(default)s, letters without any tag)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a reward setting of video_tasks, e.g. tasks.temporal_grounding.overlap=best (may be repeated)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="overwrite the file of --json")


def run(args: argparse.Namespace) -> int:
    """Print the tables; 0 if every row was read, 1 otherwise. Raises ``ValueError`` for files without predictions."""
    if args.json:
        ensure_absent([args.json], args.force)
    summaries = [path for path in args.predictions if Path(path).suffix == ".json"]
    if summaries:
        raise ValueError(
            f"{summaries[0]}: a summary has no answers to score; python recipes/released_files/summaries.py prints what"
            " it says"
        )
    settings = mixture_from_words(args.set)  # first: it may import tasks of a user's own
    lenient = _rules(args.lenient)
    model = read_predictions(args.predictions)
    scored = score_rows(model.rows, lenient, settings)
    print(f"parser: strict grammar{''.join(f' + {rule}' for rule in lenient)}, for every row alike\n")
    report: dict[str, Any] = {
        "files": args.predictions,
        "parser_rules": ["strict", *lenient],
        "bootstrap_seed": args.seed,
        **_show(model, scored, lenient, args.seed),
    }
    unreadable = len(model.unreadable)
    if args.baseline:
        baseline = read_predictions(args.baseline)
        baseline_scored = score_rows(baseline.rows, lenient, settings)
        print(f"\nbaseline: {', '.join(args.baseline)}\n")
        report["baseline"] = {"files": args.baseline, **_show(baseline, baseline_scored, lenient, args.seed)}
        paired_tasks = compare_tasks(scored, baseline_scored, args.seed)
        # rows of other tasks alone have no letters to compare
        letters = not (paired_tasks and len(scored) == len(model.rows))
        paired = compare(model.rows, baseline.rows, lenient, args.seed) if letters else {}
        report |= {"paired": _plain(paired), "paired_tasks": _plain(paired_tasks)}
        print("\nmodel minus baseline, in points, on the problems of both\n")
        _print_tables((PAIRED, paired), (PAIRED_TASKS, paired_tasks))
        unreadable += len(baseline.unreadable)
    _write(args.json, report)
    return 1 if unreadable else 0


def _show(model: Predictions, scored: list[ScoredRow], lenient: list[str], seed: int) -> dict[str, Any]:
    """Print one model's tables, and return what they show."""
    scores, task_scores = evaluate(model.rows, lenient, seed), evaluate_tasks(scored, seed)
    state = _state(model, scored, lenient)
    _print_tables((SCORES, scores), (TASK_SCORES, task_scores))
    _print_state(model, state)
    return {"scores": _plain(scores), "task_scores": _plain(task_scores), **state}


def _rules(text: str) -> list[str]:
    if text in ("all", "none"):
        return sorted(leniency_names(text == "all"))
    return sorted(leniency_names([rule.strip() for rule in text.split(",")]))


def _state(predictions: Predictions, scored: list[ScoredRow], lenient: list[str]) -> dict[str, Any]:
    """What happened to the rows before they were scored, and what their file says otherwise."""
    return {
        "duplicates_removed": dict(predictions.duplicates),
        "without_id": sum(row.id is None for row in predictions.rows),
        "unreadable": predictions.unreadable,
        "stored_score_differs": [
            {"where": row.where, "benchmark": row.benchmark, "id": row.id, "stored": row.stored, "computed": exact}
            for row, exact in [*stored_deviations(predictions.rows, lenient), *task_deviations(scored)]
        ],
    }


def _print_state(predictions: Predictions, state: dict[str, Any]) -> None:
    for benchmark, count in predictions.duplicates.items():
        print(f"{benchmark}: {count} duplicate rows of a problem were dropped")
    if state["without_id"]:
        print(f"{state['without_id']} rows have no problem id: duplicates among them cannot be told, nor pairs")
    differing = state["stored_score_differs"]
    lines = [
        f"{row['where']}: problem {row['id']}: stored accuracy {row['stored']:g}, here {row['computed']:g}"
        for row in differing
    ]
    for name, rows in (("accuracy differs from the stored one", lines), ("unreadable", predictions.unreadable)):
        if rows:
            print(f"{name}: {len(rows)} rows")
            print("".join(f"  {row}\n" for row in rows[:LISTED]), end="")
            if len(rows) > LISTED:
                print(f"  and {len(rows) - LISTED} more (--json lists all)")


# What follows data source and kind of question or task in a table: its header, and the lines of one entry.
Columns = tuple[list[str], Callable[[str, Any], Iterable[list[object]]]]


def _score_lines(kind: str, score: Score) -> Iterator[list[object]]:
    strict = percent(score.strict, score.strict_low, score.strict_high)
    yield [score.n, strict, percent(score.soft, score.soft_low, score.soft_high), score.unparsable]


def _task_lines(task: str, score: TaskScore) -> Iterator[list[object]]:
    for name, measure in score.measures.items():
        interval = f"[{measure.low:.3f}, {measure.high:.3f}]"
        yield [title(task, name), measure.n, f"{measure.mean:.3f}", interval, score.unparsable]


def _paired_lines(kind: str, part: Comparison) -> Iterator[list[object]]:
    test = part.strict
    strict = signed_percent(test.difference, test.low, test.high)
    soft = signed_percent(part.soft_difference, part.soft_low, part.soft_high)
    yield [part.n, strict, soft, test.only_first, test.only_second, f"{test.p_value:.3g}"]


def _paired_task_lines(task: str, comparison: TaskComparison) -> Iterator[list[object]]:
    for name, part in comparison.measures.items():
        interval = f"[{part.low:+.3f}, {part.high:+.3f}]"
        test = part.test.replace("_", " ")
        yield [title(task, name), part.n, f"{part.difference:+.3f}", interval, f"{part.p_value:.3g}", test]


SCORES: Columns = ["questions", "n", "strict %", "soft %", "unparsable"], _score_lines
TASK_SCORES: Columns = ["task", "measure", "n", "mean", "95% interval", "unparsable"], _task_lines
PAIRED: Columns = ["questions", "n", "strict", "soft", "only model", "only baseline", "McNemar p"], _paired_lines
PAIRED_TASKS: Columns = ["task", "measure", "n", "difference", "95% interval", "p", "test"], _paired_task_lines


def _print_tables(*tables: tuple[Columns, Mapping[str, Mapping[str, Any]]]) -> None:
    """A table of each, for those that have lines; values by benchmark, and by kind of question or task."""
    shown = []
    for (header, lines), values in tables:
        rows = [
            [benchmark, kind, *line]
            for benchmark, kinds in values.items()
            for kind, value in kinds.items()
            for line in lines(kind, value)
        ]
        if rows:
            shown.append(markdown(["benchmark", *header], rows))
    print("\n".join(shown))


def _plain(values: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        benchmark: {kind: dataclasses.asdict(value) for kind, value in kinds.items()}
        for benchmark, kinds in values.items()
    }


def _write(path: str | None, report: dict[str, Any]) -> None:
    if path:
        write_json(path, report)
        print(f"\nwritten: {path}")
