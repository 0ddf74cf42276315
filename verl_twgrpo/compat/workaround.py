"""What a workaround says about itself, and all of them: one file of this folder each, or of another package."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from types import ModuleType
from typing import Any

import wrapt

GROUP = "verl_twgrpo.workarounds"
"""Entry points by which other packages offer theirs."""

AT_ONCE = ""
"""The ``module`` of what has to be in place before the first import of whatever needs it."""


def _always() -> bool:
    return True


@dataclass(frozen=True)
class Workaround:
    """A bug elsewhere, and what is done about it here.

    Args:
        module: name of the module to whose import ``apply`` reacts, or ``AT_ONCE`` for when the plugin loads.
        apply: called once with that module after its import (for ``AT_ONCE``, with this package's plugin).
        because: the bug in one line: who does what wrong.
        versions: the release that has the bug, as a requirement: "verl==0.9.1".
        link: where it is reported or mended: an address, or a file of ``patches/``; "" if there is none.
        needed: whether this machine meets the bug at all.
    """

    module: str
    apply: Callable[[ModuleType], Any]
    because: str
    versions: str
    link: str = ""
    needed: Callable[[], bool] = _always


def collect() -> dict[str, Workaround]:
    """Every workaround by its name: the files of this folder that have one, then the entry points of ``GROUP``.

    Raises ``ValueError`` if an entry point is no workaround or takes another one's name.
    """
    found: dict[str, Workaround] = {}
    for name, value in [*_ours(), *_others()]:
        if not isinstance(value, Workaround):
            raise ValueError(f"entry point {name} of {GROUP}: it is a {type(value).__name__}, name a Workaround")
        if name in found:
            raise ValueError(f"entry point {name} of {GROUP}: there is a workaround of that name, choose another")
        found[name] = value
    return found


def active() -> dict[str, Workaround]:
    """Those that this machine needs."""
    return {name: workaround for name, workaround in collect().items() if workaround.needed()}


def install(plugin: ModuleType) -> None:
    """Apply those that cannot wait, and hook the others to the import of their module."""
    for workaround in active().values():
        if workaround.module == AT_ONCE:
            workaround.apply(plugin)
        else:
            wrapt.register_post_import_hook(workaround.apply, workaround.module)


def _ours() -> Iterator[tuple[str, Workaround]]:
    package = __name__.rpartition(".")[0]
    for entry in pkgutil.iter_modules(import_module(package).__path__):
        module = import_module(f"{package}.{entry.name}")
        if hasattr(module, "WORKAROUND"):
            yield entry.name, module.WORKAROUND


def _others() -> Iterator[tuple[str, Any]]:
    for entry in metadata.entry_points(group=GROUP):
        yield entry.name, entry.load()
