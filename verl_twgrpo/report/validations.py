"""The validations of runs scored as ``verl-twgrpo eval`` does it, other tasks by the reward settings of their run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_twgrpo.evaluation import Score, TaskScore, evaluate, evaluate_tasks, read_predictions, score_rows
from verl_twgrpo.rewards import TASKS, TaskMixture, mixture_from_words

from .reading import Run
from .site.settings import read_settings

KWARGS = "reward.custom_reward_function.reward_kwargs."
LEFT_OUT = ("score", "parsed")
"""Not shown: a dump does not say how long a response was, so that length terms are missing from the score."""


@dataclass(frozen=True)
class Validation:
    """One validation of a run. letters, tasks: by data source, as ``evaluate`` and ``evaluate_tasks`` return them.

    notes: rows that were left out and why, in words.
    """

    letters: Mapping[str, Mapping[str, Score]]
    tasks: Mapping[str, Mapping[str, TaskScore]]
    notes: tuple[str, ...] = ()


class Validations:
    """Scores files of validations, each once while it stays as it is: the page of a run that trains asks often."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int], Validation]] = {}

    def of(self, run: Run) -> dict[int, Validation]:
        """By step. A file without a row that can be read has notes alone."""
        return {step: self._scored(run, path) for step, path in run.validation.items()}

    def _scored(self, run: Run, path: Path) -> Validation:
        facts = path.stat()
        state = facts.st_mtime_ns, facts.st_size
        known = self._known.get(path)
        if known is None or known[0] != state:
            known = self._known[path] = state, score_file(path, read_settings(run.folder))
        return known[1]


def score_file(path: Path, settings: Mapping[str, Any]) -> Validation:
    """One file of validation answers; ``settings``: those of its run by dotted name."""
    try:
        predictions = read_predictions([path])
    except ValueError as error:
        return Validation({}, {}, (str(error),))
    notes = list(predictions.unreadable)
    if predictions.duplicates:
        count = predictions.duplicates.total()
        notes.append(f"{path}: {count} duplicate rows of a problem were dropped")
    try:
        scored = score_rows(predictions.rows, settings=task_settings(settings))
    except ValueError as error:
        notes.append(f"{path}: scored by the default settings of the tasks ({error})")
        scored = score_rows(predictions.rows)
    return Validation(evaluate(predictions.rows), evaluate_tasks(scored), tuple(notes))


def task_settings(settings: Mapping[str, Any]) -> TaskMixture:
    """The settings that a run gave its tasks; the defaults where it trained with another manager, or wrote none.

    Modules are not imported: who looks at a run has not asked for its code. Raises ``ValueError`` for a bad setting.
    """
    if settings.get("reward.reward_manager.name") != "video_tasks":
        return TaskMixture()
    own = {name.removeprefix(KWARGS): value for name, value in settings.items() if name.startswith(KWARGS)}
    words = [
        f"{name}={json.dumps(value)}"
        for name, value in own.items()
        if name != "modules" and not (name.startswith("tasks.") and name.split(".")[1] not in TASKS)
    ]
    return mixture_from_words(words)


def measures_by_step(validations: Mapping[int, Validation]) -> dict[tuple[str, str, str], dict[int, Any]]:
    """(data source, task, measure) -> step -> ``evaluation.Measure``, without those that are not shown."""
    found: dict[tuple[str, str, str], dict[int, Any]] = {}
    for step, validation in validations.items():
        for source, tasks in validation.tasks.items():
            for task, score in tasks.items():
                for name, measure in score.measures.items():
                    if name not in LEFT_OUT:
                        found.setdefault((source, task, name), {})[step] = measure
    return found
