"""Progress as a bar in a terminal, and as a line now and then where there is none (a job's log file)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """``with Progress(134, "frames", "video") as progress: progress.advance(failed=2)``; total: None if not known."""

    def __init__(self, total: int | None, what: str, unit: str) -> None:
        self.done, self.total, self.what, self.unit = 0, total, what, unit
        self._bar = tqdm(total=total, desc=what, unit=unit, disable=None)
        self._start = self._said = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        # a short job needs no lines
        if self._bar.disable and self._said > self._start:
            self._say({})

    def advance(self, **facts: object) -> None:
        """One more is done; ``facts`` are shown beside the count."""
        self.done += 1
        self._bar.update()
        if facts:
            self._bar.set_postfix(facts)
        if self._bar.disable and time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._say(facts)

    def _say(self, facts: dict[str, object]) -> None:
        self._said = time.monotonic()
        shown = "".join(f", {value} {name}" for name, value in facts.items())
        seconds = self._said - self._start
        of = "" if self.total is None else f" of {self.total}"
        line = f"{self.what}: {self.done}{of} {self.unit}s after {seconds:.0f} s{shown}"
        print(line, file=sys.stderr, flush=True)


def progress(items: Iterable[T], total: int | None, what: str, unit: str) -> Iterator[T]:
    """The items, with progress shown while they are taken."""
    with Progress(total, what, unit) as shown:
        for item in items:
            yield item
            shown.advance()
