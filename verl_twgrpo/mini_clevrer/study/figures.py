"""The study's figures: learning curves (Fig. 3 of the paper) and held-out accuracy with its intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from verl_twgrpo.mini_clevrer.study.accuracy import SummaryRow
from verl_twgrpo.mini_clevrer.study.arms import BEST_CONSTANT, BLIND, LABELS
from verl_twgrpo.mini_clevrer.study.comparisons import MARGIN, ComparisonRow, wanted_order
from verl_twgrpo.mini_clevrer.study.page import models
from verl_twgrpo.mini_clevrer.study.runs import KINDS
from verl_twgrpo.mini_clevrer.study.scalars import FOLLOWER, CurveRow
from verl_twgrpo.report.series import smooth
from verl_twgrpo.report.style import COLOURS, new_figure

# each arm keeps its colour in all figures; the two that the study compares have the palette's first
ARM_COLOURS = dict(
    zip(
        ("grpo_soft", "tw_grpo", "tw_grpo_released", "tw_grpo_live", "grpo_exact", "alpha_0", BLIND),
        COLOURS,
        strict=True,
    )
)
OTHER_COLOUR = "#777777"
"""The start model and the controls."""

# (column of curves.csv, factor, title)
PANELS = (
    ("strict", 100, "Rollouts: strict accuracy, %"),
    ("reward_spread", 1, "Reward: std. dev. in a group"),
    ("response_length", 1, "Response length, tokens"),
)
WINDOWS = 10
"""A curve is a running mean over one step in so many: few rollouts per step make raw values unreadable."""

TITLES = dict(
    zip(KINDS, ("One true option", "Several true options", "All questions", "Differs from observed"), strict=True)
)


def learning_figure(rows: Sequence[CurveRow]) -> Figure | None:
    """A line an arm, the mean over its seeds, in a band from the lowest seed to the highest; None without rows."""
    if not rows:
        return None
    figure, axes = new_figure(len(PANELS), 4.0)
    handles: dict[str, Any] = {}
    for axis, (column, factor, title) in zip(axes, PANELS, strict=True):
        for arm in dict.fromkeys(row.arm for row in rows):
            steps, values_SN = _by_seed([row for row in rows if row.arm == arm], column)
            if not len(steps):
                continue
            values_SN = factor * np.stack([smooth(values_N, max(1, len(steps) // WINDOWS)) for values_N in values_SN])
            # alpha = 0 is to lie on its baseline: dashes let both be seen
            dashed = {"linestyle": (0, (2, 2)), "zorder": 3} if arm == FOLLOWER else {}
            marker = {"marker": "o", "markersize": 4} if len(steps) == 1 else {}
            (line,) = axis.plot(steps, values_SN.mean(axis=0), color=ARM_COLOURS[arm], **dashed, **marker)
            if len(values_SN) > 1:
                band = values_SN.min(axis=0), values_SN.max(axis=0)
                axis.fill_between(steps, *band, color=ARM_COLOURS[arm], alpha=0.12, linewidth=0)
            seeds = len({row.seed for row in rows if row.arm == arm})
            handles.setdefault(f"{LABELS[arm]} ({seeds} seed{'s' if seeds > 1 else ''})", line)
        axis.set_title(title, fontsize=9.5)
        axis.set_xlabel(f"step (running mean over a {WINDOWS}th of the steps)", fontsize=8)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(handles.values(), handles, loc="outside upper left", ncols=4, fontsize=8)
    return figure


def accuracy_figure(rows: Sequence[SummaryRow]) -> Figure:
    """Strict accuracy of every model and control at its last step, a dot with its 95% interval, by kind of question."""
    shown = models(rows)
    kinds = [kind for kind in KINDS if any(kind in model.rows for model in shown)]
    top = 5 + 100 * max(row.strict_high for row in rows)
    figure, axes = new_figure(len(kinds), 1.2 + 0.24 * len(shown))
    for number, (axis, kind) in enumerate(zip(axes, kinds, strict=True)):
        for height, model in enumerate(shown):
            row = model.rows[kind]
            colour = ARM_COLOURS.get(model.arm, OTHER_COLOUR)
            axis.plot([100 * row.strict_low, 100 * row.strict_high], [height, height], color=colour, linewidth=1.4)
            marker = "o" if row.step is not None else "D"
            axis.plot([100 * row.strict], [height], color=colour, marker=marker, markersize=5, linestyle="")
            if model.arm == BEST_CONSTANT:
                axis.axvline(100 * row.strict, color=OTHER_COLOUR, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        _rows_axis(axis, [model.label for model in shown] if number == 0 else [""] * len(shown))
        n = next(model.rows[kind].n for model in shown)
        axis.set_title(f"{TITLES[kind]}\n(n = {n})", fontsize=9)
        axis.set_xlabel("strict accuracy, %", fontsize=8.5)
        axis.set_xlim(-3, top)
    return figure


def forest_figure(rows: Sequence[ComparisonRow]) -> Figure | None:
    """Differences in strict accuracy with intervals; the band is the margin within which two are equivalent."""
    if not rows:
        return None
    shown = wanted_order(rows)
    figure, (axis,) = new_figure(1, 1.2 + 0.24 * len(shown))
    axis.axvspan(-100 * MARGIN, 100 * MARGIN, color=OTHER_COLOUR, alpha=0.15, linewidth=0)
    axis.axvline(0, color=OTHER_COLOUR, linewidth=0.9)
    for height, row in enumerate(shown):
        colour = ARM_COLOURS.get(row.first, OTHER_COLOUR)
        axis.plot([100 * row.low, 100 * row.high], [height, height], color=colour, linewidth=1.4)
        axis.plot([100 * row.difference], [height], color=colour, marker="o", markersize=5, linestyle="")
    _rows_axis(axis, [f"{LABELS[row.first]} − {LABELS[row.second]} ({row.seeds})" for row in shown])
    axis.set_xlabel("difference in strict accuracy, points (number of paired seeds beside the names)", fontsize=8.5)
    return figure


def _by_seed(rows: Sequence[CurveRow], column: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps at which every seed has the column, and its values as [seeds, steps]."""
    by_seed: dict[int | None, dict[int, float]] = {}
    for row in rows:
        values = by_seed.setdefault(row.seed, {})
        if getattr(row, column) is not None:
            values[row.step] = getattr(row, column)
    steps = sorted(set.intersection(*map(set, by_seed.values())))
    return np.array(steps), np.array([[values[step] for step in steps] for values in by_seed.values()])


def _rows_axis(axis: Axes, names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.grid(False, axis="y")
