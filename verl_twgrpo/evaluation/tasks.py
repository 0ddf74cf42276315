"""Answers to questions of any other task than multiple choice: the means of all that a task measures, with intervals.

Measures go by the names that training logs (docs/tasks.md). Those that are 0 or 1 get Wilson's interval and McNemar's
test, graded ones a bootstrap and a sign-flip test. An answer without a value of a measure (the error of a count that
nobody could read) is left out of that measure's mean, and counted in none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from verl_twgrpo.rewards import TASKS, TaskMixture

from .intervals import bootstrap_mean, paired_difference, sign_flip, wilson
from .metrics import PARSER_RULES
from .predictions import MULTIPLE_CHOICE, Prediction

FIRST = ("score", "accuracy", "soft_accuracy", "format")
"""Measures that every task has, in the order of the tables."""

TITLES = {
    "iou": "mIoU",
    "iop": "mIoP",
    "recall_0.3": "R@0.3",
    "recall_0.5": "R@0.5",
    "recall_0.7": "R@0.7",
    "iop_0.3": "IoP@0.3",
    "iop_0.5": "IoP@0.5",
    "letters_accuracy": "Acc@QA",
    "mra": "MRA",
    "wer": "WER",
    "kendall_tau": "Kendall's tau",
    "rouge_l": "ROUGE-L",
    "count_error": "mean absolute error",
}
"""What papers call a measure."""


@dataclass(frozen=True)
class ScoredRow:
    """A prediction and all numbers of its task; None where one does not apply."""

    row: Prediction
    scores: Mapping[str, float | None]


@dataclass(frozen=True)
class Measure:
    """Mean over the n answers that have a value, with its 95% interval."""

    n: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class TaskScore:
    """The measures of n answers to one task; unparsable: answers that are not in the task's form."""

    n: int
    unparsable: int
    measures: dict[str, Measure]


@dataclass(frozen=True)
class MeasureDifference:
    """Mean of one model less that of another on the n questions where both have a value.

    test: ``mcnemar`` for measures that are 0 or 1, ``sign_flip`` for graded ones; p_value: two-sided.
    """

    n: int
    difference: float
    low: float
    high: float
    p_value: float
    test: str


@dataclass(frozen=True)
class TaskComparison:
    """Two models on their n common questions of one task."""

    n: int
    measures: dict[str, MeasureDifference]


def title(task: str, measure: str) -> str:
    """What papers call a measure of ``task``: ``mIoU``, ``R@0.5``, ``Acc@GQA``; else its own name."""
    if task == "grounded_qa" and measure == "accuracy":
        return "Acc@GQA"
    return TITLES.get(measure, measure)


def score_rows(
    predictions: Iterable[Prediction],
    lenient: Iterable[str] = PARSER_RULES,
    settings: TaskMixture | None = None,
) -> list[ScoredRow]:
    """Score every row that is no multiple choice.

    ``lenient``: leniencies for all tasks that know them, unless ``settings`` names some for a task.
    Raises ``ValueError`` for a truth that lacks what a setting needs.
    """
    settings = settings or TaskMixture()
    rules = list(lenient)
    mixtures: dict[str, TaskMixture] = {}
    scored = []
    for row in predictions:
        if row.task == MULTIPLE_CHOICE:
            continue
        if row.task not in mixtures:
            known = [rule for rule in rules if rule in TASKS[row.task].settings.LENIENCIES]
            own = {"lenient": known} | dict(settings.tasks.get(row.task) or {})
            mixtures[row.task] = TaskMixture(settings.common, {row.task: own})
        scores = mixtures[row.task].score_read(row.task, row.text, row.truth)
        scored.append(ScoredRow(row, {name: value for name, value in scores.items() if name != "acc"}))
    return scored


def evaluate_tasks(scored: Iterable[ScoredRow], seed: int = 0) -> dict[str, dict[str, TaskScore]]:
    """Measures by data source and task; ``seed`` is that of the bootstrap."""
    return {
        benchmark: {task: _task_score(rows, seed) for task, rows in tasks.items()}
        for benchmark, tasks in _grouped(scored).items()
    }


def compare_tasks(
    scored: Iterable[ScoredRow], baseline: Iterable[ScoredRow], seed: int = 0
) -> dict[str, dict[str, TaskComparison]]:
    """Model minus baseline on the questions of both, by data source and task.

    Raises ``ValueError`` if a question has two truths, or two tasks.
    """
    theirs: dict[tuple[str, str | None], ScoredRow] = {
        (one.row.benchmark, one.row.id): one for one in baseline if one.row.id is not None
    }
    ours = [one for one in scored if (one.row.benchmark, one.row.id) in theirs]
    for one in ours:
        other = theirs[one.row.benchmark, one.row.id]
        if (one.row.task, one.row.truth) != (other.row.task, other.row.truth):
            raise ValueError(f"{one.row.where}: {one.row.task} has another truth, or task, at {other.row.where}")
    return {
        benchmark: {
            task: _compare(rows, [theirs[benchmark, one.row.id] for one in rows], seed) for task, rows in tasks.items()
        }
        for benchmark, tasks in _grouped(ours).items()
    }


def task_deviations(scored: Iterable[ScoredRow]) -> list[tuple[Prediction, float]]:
    """Rows whose file holds another accuracy than the one computed here, with the latter."""
    found = []
    for one in scored:
        accuracy = one.scores["accuracy"]
        assert accuracy is not None, "every task has one"
        if one.row.stored is not None and one.row.stored != accuracy:
            found.append((one.row, accuracy))
    return found


def _task_score(rows: Sequence[ScoredRow], seed: int) -> TaskScore:
    measures = {}
    for name in _names(rows):
        values = [value for one in rows if (value := one.scores.get(name)) is not None]
        if values:
            bounds = wilson(int(sum(values)), len(values)) if _is_binary(values) else bootstrap_mean(values, seed)
            measures[name] = Measure(len(values), sum(values) / len(values), *bounds)
    return TaskScore(len(rows), sum(one.scores.get("parsed") == 0 for one in rows), measures)


def _compare(ours: Sequence[ScoredRow], theirs: Sequence[ScoredRow], seed: int) -> TaskComparison:
    measures = {}
    for name in _names(ours):
        first, second = [], []
        for one, other in zip(ours, theirs, strict=True):
            values = one.scores.get(name), other.scores.get(name)
            if values[0] is not None and values[1] is not None:
                first.append(values[0])
                second.append(values[1])
        if first:
            measures[name] = _difference(first, second, seed)
    return TaskComparison(len(ours), measures)


def _difference(first: list[float], second: list[float], seed: int) -> MeasureDifference:
    if _is_binary(first) and _is_binary(second):
        test = paired_difference(first, second)
        return MeasureDifference(len(first), test.difference, test.low, test.high, test.p_value, "mcnemar")
    differences = [a - b for a, b in zip(first, second, strict=True)]
    low, high = bootstrap_mean(differences, seed)
    mean = sum(differences) / len(differences)
    return MeasureDifference(len(differences), mean, low, high, sign_flip(differences, seed), "sign_flip")


def _is_binary(values: Iterable[float]) -> bool:
    return all(value in (0, 1) for value in values)


def _names(rows: Sequence[ScoredRow]) -> list[str]:
    found = dict.fromkeys(name for one in rows for name in one.scores if name != "parsed")
    return [*(name for name in FIRST if name in found), *(name for name in found if name not in FIRST)]


def _grouped(scored: Iterable[ScoredRow]) -> dict[str, dict[str, list[ScoredRow]]]:
    found: dict[str, dict[str, list[ScoredRow]]] = {}
    for one in scored:
        found.setdefault(one.row.benchmark, {}).setdefault(one.row.task, []).append(one)
    return found
