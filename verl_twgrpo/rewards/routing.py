"""Score a response to a question of any task: the row's ``extra_info.task`` says which, multiple choice by default."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from . import scoring
from .compose import Composition, checked, read_settings
from .registry import TASKS, TaskSettings, find_task, load_modules

DEFAULT_TASK = "multiple_choice"


def score(
    task: str,
    text: str,
    truth: Any,
    settings: Mapping[str, Any] | None = None,
    *,
    info: Mapping[str, Any] | None = None,
    tokens: int | None = None,
) -> dict[str, float | None]:
    """All scores of one response: numbers, None where one does not apply.

    ``score`` is what the policy is paid, ``accuracy`` 0 or 1 at the task's threshold, ``soft_accuracy`` its graded form
    in [0, 1], ``format`` and ``parsed`` 0 or 1; further keys are the task's own.

    Args:
        task: a name of ``TASKS``.
        text: the response.
        truth: in the task's form (docs/tasks.md), or as JSON text of it, as parquet files hold it.
        settings: of the task and of ``Composition``, by name.
        info: the row's extra_info: options, id.
        tokens: length of the response, for the length terms.

    Raises ``ValueError`` for an unknown task, a bad setting or a bad truth. No text raises.
    """
    entry = find_task(task)
    common, own = read_settings(entry, settings)
    read = entry.read_truth(truth, info or {}, f"{task}: item {(info or {}).get('id', '(no id)')}")
    return common.total(checked(entry, entry.score(text, read, own)), entry.form(text, common.strict_format), tokens)


def task_of(info: Mapping[str, Any] | None) -> str:
    """The task of a row by its extra_info."""
    return (info or {}).get("task") or DEFAULT_TASK


@dataclass(frozen=True)
class TaskMixture:
    """Settings of a run that trains on any mixture of tasks.

    common: settings of ``Composition`` for all tasks. tasks: settings by task, which override the common ones.
    Raises ``ValueError`` naming the setting.
    """

    common: Mapping[str, Any] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, settings: Mapping[str, Any], max_tokens: int | None = None) -> TaskMixture:
        """Settings by name: those of ``Composition``, ``modules`` to import, and ``tasks.NAME.SETTING``.

        None is as good as not set: a recipe has no other way to drop a setting of the recipe that it builds on.
        """
        settings = {name: value for name, value in settings.items() if value is not None}
        load_modules(settings.pop("modules", None) or [])
        tasks = settings.pop("tasks", None) or {}
        if not isinstance(tasks, Mapping):
            raise ValueError(f"tasks: {tasks!r} is no mapping of task names to their settings")
        known = [name for name in Composition.__dataclass_fields__]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ValueError(
                f"{unknown[0]}: no such reward setting; there are {', '.join(known)}, modules, and tasks.TASK.SETTING"
            )
        if max_tokens is not None:
            settings.setdefault("max_tokens", max_tokens)
        mixture = cls(settings, tasks)
        Composition(**settings)
        for name, own in tasks.items():
            try:
                if own is not None and not isinstance(own, Mapping):
                    raise ValueError(f"{own!r} is no mapping of settings")
                mixture.of(name)
            except ValueError as error:
                raise ValueError(f"tasks.{name}: {error}") from None
        return mixture

    def of(self, task: str) -> tuple[Composition, TaskSettings]:
        """The settings that ``task`` is scored with. Raises ``ValueError`` for an unknown task."""
        return read_settings(find_task(task), {**self.common, **(self.tasks.get(task) or {})})

    def score_read(self, task: str, text: str, truth: Any, tokens: int | None = None) -> dict[str, float | None]:
        """``score`` against a truth that the task's ``read_truth`` has read. Raises ``ValueError`` as it does."""
        entry, (common, own) = find_task(task), self.of(task)
        return common.total(
            checked(entry, entry.score(text, truth, own)), entry.form(text, common.strict_format), tokens
        )

    def score_row(
        self,
        data_source: str,
        text: str,
        ground_truth: Any,
        info: Mapping[str, Any] | None,
        tokens: int | None = None,
    ) -> dict[str, float | str | None]:
        """``score`` of a row as verl's dataset holds it, with the row's ``id``, ``benchmark`` and ``task`` as text.

        Raises ``ValueError`` with the row's id for an unknown task or a bad truth.
        """
        row_id = (info or {}).get("id")
        where = f"{data_source}: item {'(no id)' if row_id is None else row_id}"
        name = task_of(info)
        if name not in TASKS:
            raise ValueError(f"{where}: task {name!r} is none of {', '.join(sorted(TASKS))}")
        truth = TASKS[name].read_truth(ground_truth, info or {}, where)
        result = self.score_read(name, text, truth, tokens)
        return {**result, "id": None if row_id is None else str(row_id), "benchmark": data_source, "task": name}


def mixture_from_words(words: Sequence[str]) -> TaskMixture:
    """The reward settings in words such as ``tasks.temporal_grounding.overlap=best``, values as in JSON.

    Raises ``ValueError`` naming the word that is no setting.
    """
    settings: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        *path, last = name.split(".")
        node = settings
        for part in path:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ValueError(f"{word}: {part} has a value already")
        if not equals or not all((*path, last)):
            raise ValueError(f"{word}: need NAME=VALUE, such as tasks.temporal_grounding.overlap=best")
        try:
            node[last] = json.loads(value)
        except ValueError:
            node[last] = value
    return TaskMixture.read(settings)


def check_gold(data_source: str, ground_truth: Any, info: Mapping[str, Any] | None = None) -> None:
    """Raise ``ValueError`` with the row's id unless the row's own truth, given as an answer, scores in full."""
    info = info or {}
    where = f"{data_source}: item {info.get('id', '(no id)')}"
    name = task_of(info)
    if name == DEFAULT_TASK:
        scoring.check_gold(data_source, ground_truth, info)
        return
    if name not in TASKS:
        raise ValueError(f"{where}: task {name!r} is none of {', '.join(sorted(TASKS))}")
    entry = TASKS[name]
    gold = "<think>gold</think>" + entry.gold(entry.read_truth(ground_truth, info, where))
    result = TaskMixture({"strict_format": True}).score_row(data_source, gold, ground_truth, info)
    if not (result["accuracy"] == result["soft_accuracy"] == result["format"] == 1.0):
        raise ValueError(f"{where}: the gold answer {gold[:200]} scores only {result['soft_accuracy']}")


class ScorableItem(Protocol):
    """What ``validate`` needs of an item, as ``verl_twgrpo.data.schema.Item`` has it; ``task`` may be missing."""

    @property
    def id(self) -> str: ...

    @property
    def source(self) -> str: ...

    @property
    def options(self) -> tuple[str, ...]: ...

    @property
    def ground_truth(self) -> str: ...


def validate(items: Iterable[ScorableItem]) -> int:
    """Check that the gold answer of every item scores in full, and return their number.

    Raises ``ValueError`` with the id of the first item whose gold answer does not.
    """
    count = 0
    for item in items:
        info = {"id": item.id, "options": item.options or None, "task": getattr(item, "task", DEFAULT_TASK)}
        if info["task"] == DEFAULT_TASK:
            info["options"] = item.options  # no options at all are an error there
        check_gold(item.source, item.ground_truth, info)
        count += 1
    return count
