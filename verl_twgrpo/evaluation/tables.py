"""Tables as Markdown and CSV, and how a percentage is written in them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are aligned as numbers."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "".join("| " + " | ".join(map(_cell, line)) + " |\n" for line in lines)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The same as CSV, with all digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([header, *rows])
    return out.getvalue()


def percent(value: float, low: float | None = None, high: float | None = None) -> str:
    """``0.504`` as ``50.4``, with its interval as ``50.4 [49.3, 51.4]``."""
    bounds = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * value:.1f}{bounds}"


def signed_percent(value: float, low: float, high: float) -> str:
    """A difference of fractions in points, with its interval and its sign."""
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _cell(value: object) -> str:
    # a bar or a new line in a name would break the row
    return " ".join(str(value).split()).replace("|", "\\|")
