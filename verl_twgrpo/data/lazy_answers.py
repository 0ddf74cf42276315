"""What a policy that does not look would earn: for each task of a data set, constant answers and their mean scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_twgrpo.rewards import TASKS, TaskMixture, task_of


@dataclass(frozen=True)
class LazyAnswer:
    """One way to answer all rows of a task alike.

    answer: in words. example: the answer to the first row. accuracy, soft_accuracy: means over the rows; score: what a
    response in the right format is paid on average. best: no other way of this task is paid more.
    """

    data_source: str
    task: str
    rows: int
    answer: str
    example: str
    accuracy: float
    soft_accuracy: float
    score: float
    best: bool


def lazy_answers(rows: Iterable[Mapping[str, Any]], settings: TaskMixture | None = None) -> list[LazyAnswer]:
    """The constant answers of every data source and task, the best first.

    rows: as ``data.parquet.read_rows`` gives them. settings: of the reward that the run will have.
    Raises ``ValueError`` with the row's id for an unknown task or a bad truth.
    """
    settings = settings or TaskMixture()
    groups: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        info = row["extra_info"]
        source, task = row["data_source"], task_of(info)
        where = f"{source}: item {info.get('id', '(no id)')}"
        if task not in TASKS:
            raise ValueError(f"{where}: task {task!r} is none of {', '.join(sorted(TASKS))}")
        # rows of tasks without options hold an empty list, which is none
        options = {"options": info["options"]} if info.get("options") else {}
        truth = TASKS[task].read_truth(row["reward_model"]["ground_truth"], {**info, "options": None} | options, where)
        groups.setdefault((source, task), []).append(truth)
    return [
        answer for (source, task), truths in sorted(groups.items()) for answer in _of(source, task, truths, settings)
    ]


def _of(source: str, task: str, truths: Sequence[Any], settings: TaskMixture) -> list[LazyAnswer]:
    entry = TASKS[task]
    golds = Counter(map(entry.gold, truths))
    gold, count = golds.most_common(1)[0]
    ways: dict[str, Sequence[str]] = dict(entry.lazy(truths))
    ways[f"the most frequent answer ({count} of {len(truths)} rows)"] = [gold] * len(truths)
    scored = [(name, answers[0], *_means(task, answers, truths, settings)) for name, answers in ways.items()]
    scored.sort(key=lambda way: -way[-1])
    return [LazyAnswer(source, task, len(truths), *way, best=way[-1] == scored[0][-1]) for way in scored]


def _means(
    task: str, answers: Sequence[str], truths: Sequence[Any], settings: TaskMixture
) -> tuple[float, float, float]:
    sums = [0.0, 0.0, 0.0]
    for answer, truth in zip(answers, truths, strict=True):
        scores = settings.score_read(task, f"<think>x</think>{answer}", truth)
        for k, name in enumerate(("accuracy", "soft_accuracy", "score")):
            sums[k] += scores[name] or 0.0
    accuracy, soft, score = (total / len(truths) for total in sums)
    return accuracy, soft, score


def to_table(answers: Sequence[LazyAnswer]) -> str:
    """A Markdown table; the best way of each task is marked with a star."""
    lines = ["| data source | task | rows | constant answer | accuracy | soft accuracy | score |"]
    lines.append("|" + " --- |" * 4 + " ---: |" * 3)
    for one in answers:
        name = (one.answer + (" *" if one.best else "")).replace("|", "\\|")
        numbers = f"{one.accuracy:.3f} | {one.soft_accuracy:.3f} | {one.score:.3f}"
        lines.append(f"| {one.data_source} | {one.task} | {one.rows} | {name} | {numbers} |")
    return "\n".join(lines) + "\n"
