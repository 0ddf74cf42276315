"""The sources by name: a file each here, ending in its ``SOURCE`` (source.py), and those of other packages.

Another package adds one by an entry point of the group ``verl_twgrpo.sources`` that names its ``SOURCE``.
mini_clevrer is not here: it has no annotations, it makes its videos (``verl-twgrpo demo prepare``).
"""

from __future__ import annotations

from importlib import import_module, metadata
from pkgutil import iter_modules

from verl_twgrpo.data.sources.fields import Skipped
from verl_twgrpo.data.sources.source import Source

ENTRY_POINTS = "verl_twgrpo.sources"

SOURCES: dict[str, Source] = {}
# entry points that give no source -> why; said when one of them is asked for
BROKEN: dict[str, str] = {}


def collect() -> None:
    """Fill ``SOURCES``: the files of this package, then the entry points, none of which may take another's name."""
    for module in iter_modules(__path__):
        found = getattr(import_module(f"{__name__}.{module.name}"), "SOURCE", None)
        if found is not None:
            SOURCES[found.name] = found
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        try:
            found = entry.load()
        except Exception as error:  # another package's code
            BROKEN[entry.name] = f"{entry.value} cannot be loaded ({type(error).__name__}: {error})"
            continue
        if not isinstance(found, Source):
            BROKEN[entry.name] = f"{entry.value} is no Source but {type(found).__name__}"
        elif found.name in SOURCES and SOURCES[found.name] is not found:
            BROKEN[entry.name] = f"{entry.value} has the name {found.name}, which is taken"
        else:
            SOURCES[found.name] = found


def source(name: str) -> Source:
    """Raises ``ValueError`` for an unknown or broken one."""
    if name in SOURCES:
        return SOURCES[name]
    if name in BROKEN:
        raise ValueError(f"{name}: the source of another package: {BROKEN[name]}")
    raise ValueError(f"{name}: unknown source; known: {', '.join(SOURCES)}")


collect()

__all__ = ["BROKEN", "SOURCES", "Skipped", "Source", "source"]
