"""The tasks that can be scored. A task is one function with the decorator ``task``, in this package or outside it.

    from verl_twgrpo.rewards import task

    @task("shouting")
    def shouting(text, truth, settings):
        answer = settings.answer(text)
        return {"accuracy": float(answer == truth.upper()), "capitals": sum(map(str.isupper, text))}

Outside the package a module with such functions is found by the entry-point group ``verl_twgrpo.rewards``, or by name
or file in the reward setting ``modules``.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from .answers import FINDERS, answer_text, ascii_forms, leniency_names
from .forms import ANSWER_CHARS
from .scoring import format_reward

ENTRY_POINTS = "verl_twgrpo.rewards"
Parts = Mapping[str, float | None]


@dataclass(frozen=True)
class TaskSettings:
    """Settings that every task has; a task with more of them subclasses this.

    lenient: False (strict grammar), True (all leniencies of the task), or a list of their names.

    Raises ``ValueError`` naming the setting.
    """

    LENIENCIES: ClassVar[frozenset[str]] = frozenset(FINDERS) | {"full_width"}

    lenient: bool | Iterable[str] = False

    def __post_init__(self) -> None:
        leniency_names(self.lenient, self.LENIENCIES)

    def allows(self, rule: str) -> bool:
        """Whether the leniency ``rule`` is on."""
        return rule in leniency_names(self.lenient, self.LENIENCIES)

    def answer(self, text: str) -> str | None:
        """The answer's text: between the only pair of answer tags, or where a leniency finds it; None if nowhere.

        More than ``forms.ANSWER_CHARS`` characters are no answer.
        """
        content = answer_text(text, leniency_names(self.lenient, self.LENIENCIES))
        if content is None or len(content) > ANSWER_CHARS:
            return None
        return ascii_forms(content) if self.allows("full_width") else content


def require_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise ``ValueError`` naming the setting unless ``value`` is one of ``choices``."""
    if value not in tuple(choices):
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(choices)}")


def require_number(name: str, value: object, low: float = 0.0, high: float = sys.float_info.max) -> None:
    """Raise ``ValueError`` naming the setting unless ``value`` is a number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        limits = f"from {low:g} to {high:g}" if high < sys.float_info.max else f"of at least {low:g}"
        raise ValueError(f"{name}: {value!r} is not a number {limits}")


@dataclass(frozen=True)
class Task:
    """One task type.

    score(text, truth, settings) -> parts of the score, numbers or None: ``accuracy`` (0 or 1), and by choice
    ``soft_accuracy`` in [0, 1] (default: accuracy), ``reward``, what the policy is paid (default: soft accuracy),
    ``parsed`` (default 1), and any other number worth logging.
    settings: dataclass of its settings. read_truth(raw, info, where) -> truth as ``score`` takes it; ``info`` is the
    row's extra_info, ``where`` names the row in errors. gold(truth) -> what a perfect response says after thinking.
    form(text, strict) -> format reward, 0 or 1. lazy(truths) -> answers, one per truth and written as ``gold`` writes,
    of policies that do not look, by what they do; the most frequent gold answer need not be among them.
    """

    name: str
    score: Callable[[str, Any, Any], Parts]
    settings: type[TaskSettings]
    read_truth: Callable[[Any, Mapping[str, Any], str], Any]
    gold: Callable[[Any], str]
    form: Callable[[str, bool], float]
    lazy: Callable[[Sequence[Any]], Mapping[str, Sequence[str]]]
    module: str


SEARCHED = 500
"""Truths that the search for a best constant answer looks at."""


def thinned(values: Sequence[Any], count: int = SEARCHED) -> list[Any]:
    """At most ``count`` of the values, evenly spread."""
    step = max(1, -(-len(values) // count))
    return list(values[::step])


TASKS: dict[str, Task] = {}
"""Every registered task by its name."""


def task(
    name: str,
    *,
    settings: type[TaskSettings] = TaskSettings,
    read_truth: Callable[[Any, Mapping[str, Any], str], Any] = lambda raw, info, where: raw,
    gold: Callable[[Any], str] = lambda truth: f"<answer>{truth}</answer>",
    form: Callable[[str, bool], float] = format_reward,
    lazy: Callable[[Sequence[Any]], Mapping[str, Sequence[str]]] = lambda truths: {},
) -> Callable[[Callable], Callable]:
    """Register the decorated function under ``name``; see ``Task`` for what the arguments are.

    Raises ``ValueError`` if another module has taken the name.
    """

    def register(function: Callable[[str, Any, Any], Parts]) -> Callable:
        taken = TASKS.get(name)
        if taken is not None and taken.module != function.__module__:
            raise ValueError(f"reward task {name}: {taken.module} has this name already; choose another")
        TASKS[name] = Task(name, function, settings, read_truth, gold, form, lazy, function.__module__)
        return function

    return register


def find_task(name: str) -> Task:
    """The task called ``name``. Raises ``ValueError`` with the names that there are."""
    if name not in TASKS:
        raise ValueError(f"task {name!r}: no such reward task; there are {', '.join(sorted(TASKS))}")
    return TASKS[name]


def load_own_tasks() -> None:
    """Import every module of ``verl_twgrpo.rewards.tasks``."""
    package = importlib.import_module("verl_twgrpo.rewards.tasks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def load_entry_points() -> None:
    """Import the modules of other packages in the group ``verl_twgrpo.rewards``.

    Raises ``RuntimeError`` naming the entry point that does not load: a task that is missing in silence would be found
    missing in the middle of a run.
    """
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as error:
            raise RuntimeError(
                f"reward tasks of {entry.name} ({entry.value}) do not load: {type(error).__name__}: {error};"
                " mend or uninstall that package"
            ) from error


def load_modules(modules: object) -> None:
    """Import the modules of the setting ``modules``: names (``my_package.rewards``) or files (``rewards.py``).

    Raises ``ValueError`` naming the setting and the module that cannot be imported.
    """
    if isinstance(modules, str) or not isinstance(modules, Iterable):
        raise ValueError(f"modules: {modules!r} is not a list of module names or files")
    for name in map(str, modules):
        try:
            _load_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
        except Exception as error:
            raise ValueError(f"modules: {name} cannot be imported: {type(error).__name__}: {error}") from error


def _load_file(path: Path) -> None:
    path = path.resolve()
    name = f"verl_twgrpo_reward_{path.stem}_{abs(hash(str(path)))}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
