"""One look for all figures, and the line below each that names its runs and its command."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only: works without a display

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from verl_twgrpo.files import atomic_write  # noqa: E402

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's palette, for readers with any colour vision; blue and vermilion first."""
WEIGHTS_MAP = "viridis"
NO_DATA = "#ececec"
WIDTH = 9.0
"""Inches; at 160 dots an inch a figure fills a README's column."""

RC = {
    "figure.dpi": 160,
    "savefig.dpi": 160,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


def look() -> AbstractContextManager:
    """The look, for what is drawn and saved inside a ``with`` block; outside it matplotlib's settings stay."""
    return plt.rc_context(RC)


def new_figure(columns: int = 1, height: float = 3.6) -> tuple[Figure, list]:
    """A figure with ``columns`` panels side by side."""
    figure, axes = plt.subplots(1, columns, figsize=(WIDTH, height), squeeze=False, layout="constrained")
    return figure, list(axes[0])


def save(figure: Figure, path: Path, runs: Sequence[str], command: str) -> None:
    """Write the figure as PNG with the names of its runs and its command below it and in its metadata."""
    note = f"{', '.join(runs)}  ·  {command}"
    figure.supxlabel(textwrap.fill(note, 150), x=0.01, ha="left", fontsize=6.5, color="#777777")
    with atomic_write(path) as part:
        figure.savefig(part, format="png", metadata={"Title": path.stem, "Source": note})
    plt.close(figure)
