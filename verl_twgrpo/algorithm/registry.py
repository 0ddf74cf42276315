"""Named implementations of one seam: those of the package, those that a program registers, those of entry points."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

T = TypeVar("T", bound=type)


class Registry(Generic[T]):
    """Classes by their ``name``. As a decorator, ``@registry.register`` takes one in.

    Another distribution adds its own through the entry-point group ``group``: each entry names a module, and importing
    it registers. They are loaded when a name is first asked for, in whichever process that is.

    Args:
        what: one entry in words, for errors ("divergence").
        group: the entry-point group.
    """

    def __init__(self, what: str, group: str) -> None:
        self._what = what
        self._group = group
        self._entries: dict[str, T] = {}
        self._loaded = False

    def register(self, entry: T) -> T:
        """Takes in a class that has a ``name``. Raises ``ValueError`` if another class has that name."""
        name = getattr(entry, "name", None)
        if not isinstance(name, str) or not name:
            raise ValueError(f"{self._what} {entry.__qualname__}: give it a name")
        known = self._entries.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (entry.__module__, entry.__qualname__):
            raise ValueError(
                f"{self._what} {name!r} is registered already, by {known.__module__}.{known.__qualname__}: choose "
                f"another name for {entry.__module__}.{entry.__qualname__}"
            )
        self._entries[name] = entry
        return entry

    def names(self) -> tuple[str, ...]:
        """All names, in the order in which they were registered."""
        if not self._loaded:
            self._loaded = True
            for entry in entry_points(group=self._group):
                entry.load()
        return tuple(self._entries)

    def get(self, name: Any) -> T:
        """The class of that name. Raises ``ValueError`` with all names there are."""
        names = self.names()
        if name not in names:
            raise ValueError(f"{self._what} {name!r} is unknown, choose one of {', '.join(names)}")
        return self._entries[name]
