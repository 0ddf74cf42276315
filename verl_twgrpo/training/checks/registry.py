"""The one list of configuration checks, which ``verl-twgrpo plan`` and the start of training both run.

A check is a function of the composed configuration that raises one sentence, with the key's name and what to do, and
may return notes: things to know that stand against nothing. A new one is a function under ``@check`` in a module of
this package; all of its modules are loaded.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from omegaconf import DictConfig

Check = Callable[[DictConfig], Iterable[str] | None]
Runs = Literal["all", "training", "weighted"]


@dataclass(frozen=True)
class Registered:
    """A check, the runs that it is for ("weighted" ones train with token weights), and whether it reads files."""

    function: Check
    runs: Runs
    reads_files: bool


CHECKS: list[Registered] = []


def check(*, runs: Runs = "all", reads_files: bool = False) -> Callable[[Check], Check]:
    """Put a function on the list. Those that read files come after all others, as they take longest.

    A check raises ``ValueError``, or ``FileNotFoundError`` for a file that is not there (yet).
    """

    def put(function: Check) -> Check:
        CHECKS.append(Registered(function, runs, reads_files))
        return function

    return put


def run_checks(config: DictConfig, *, weighted: bool, reads_files: bool, absent: list[str] | None = None) -> list[str]:
    """Run the checks that are for this run, of one of the two kinds; returns their notes.

    With a list ``absent``, what is said of files that are not there goes into it, and the other checks go on.
    """
    kinds = {"all"}
    if not config.trainer.val_only:
        kinds |= {"training", "weighted"} if weighted else {"training"}
    notes: list[str] = []
    for registered in CHECKS:
        if registered.runs not in kinds or registered.reads_files != reads_files:
            continue
        try:
            notes += registered.function(config) or ()
        except FileNotFoundError as error:
            if absent is None:
                raise
            absent.append(str(error))
    return notes


def load_all(package: str, path: Iterable[str]) -> None:
    """Import every module of ``package``, so that its checks are on the list, in the order of their names."""
    for module in sorted(pkgutil.iter_modules(path), key=lambda module: module.name):
        importlib.import_module(f"{package}.{module.name}")
