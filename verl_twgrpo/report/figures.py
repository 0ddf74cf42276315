"""The paper's figures for one run, or for several: Fig. 3a, 3b, A2 and A3, and accuracy on the validation set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from verl_twgrpo.evaluation import Score

from . import series
from .reading import Run
from .style import COLOURS, NO_DATA, WEIGHTS_MAP, new_figure

SMOOTHED_FROM = 60
"""Steps from which a curve is drawn as a running mean over its raw values."""


def reward_figure(runs: Sequence[Run]) -> Figure | None:
    """Reward mean and within-group spread over steps (Fig. 3a); None if no run has either."""
    panels = [("Reward, mean", series.reward_mean), ("Reward, standard deviation within a group", series.reward_spread)]
    return _curves(runs, panels)


def length_figure(runs: Sequence[Run]) -> Figure | None:
    """Response length over steps (Fig. 3b); None if no run has it."""
    return _curves(runs, [("Response length, mean tokens", series.response_length)])


def divergence_figure(runs: Sequence[Run]) -> Figure | None:
    """Mean D_t over steps (Fig. A3); None if no run has it."""
    return _curves(runs, [("Divergence D$_t$, mean over positions", series.divergence)], with_source=True)


def weights_figure(runs: Sequence[Run]) -> Figure | None:
    """Weight by position over samples, with the padding region marked (Fig. A2), a panel a run; None without dumps."""
    runs = [run for run in runs if run.groups]
    if not runs:
        return None
    figure, axes = new_figure(len(runs), 4.2)
    fields = [series.weights_by_position(run.groups) for run in runs]
    low, high = (float(pick([pick(field[~np.isnan(field)]) for field, _ in fields])) for pick in (np.min, np.max))
    if low == high:  # every group degenerate: all weights are 1
        low, high = low - 0.5, high + 0.5
    top = max(weights.shape[0] for weights, _ in fields)
    for run, axis, (weights, shortest) in zip(runs, axes, fields, strict=True):
        image = axis.imshow(
            weights,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            cmap=WEIGHTS_MAP,
            vmin=low,
            vmax=high,
            extent=(0, weights.shape[1], 0, weights.shape[0]),
        )
        edges = np.arange(len(shortest) + 1)
        boundary = np.append(shortest, shortest[-1])
        # dark below white: the line has to show on every colour of the map
        axis.step(edges, boundary, where="post", color="black", linewidth=2.2, alpha=0.45)
        axis.step(edges, boundary, where="post", color="white", linewidth=1.3, linestyle=(0, (4, 2)))
        axis.set(title=run.label, xlabel="training sample (group of responses)", ylim=(0, top), facecolor=NO_DATA)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(False)
    axes[0].set_ylabel("token position")
    figure.suptitle(
        "Weight by position; above the dashed line some responses of the group have ended (padding)",
        x=0.01,
        ha="left",
        fontsize=9,
    )
    figure.colorbar(image, ax=axes, label="token weight", pad=0.01)
    return figure


def validation_figure(accuracies: Mapping[str, Mapping[int, Mapping[str, Score]]]) -> Figure | None:
    """Strict and soft accuracy over steps with 95% intervals, a panel a benchmark; None if there is no validation.

    accuracies: run -> step -> benchmark -> score of all its questions.
    """
    benchmarks = sorted({name for steps in accuracies.values() for scores in steps.values() for name in scores})
    if not benchmarks:
        return None
    figure, axes = new_figure(len(benchmarks))
    handles: dict[str, Any] = {}
    for axis, benchmark in zip(axes, benchmarks, strict=True):
        every = [scores[benchmark] for steps in accuracies.values() for scores in steps.values() if benchmark in scores]
        # where every question has one answer, the soft accuracy is the strict one
        alike = all(score.soft == score.strict for score in every)
        for colour, (label, steps) in zip(_cycle(accuracies), accuracies.items(), strict=True):
            scored = [(step, scores[benchmark]) for step, scores in steps.items() if benchmark in scores]
            for kind, line in (("strict", "-"),) if alike else (("strict", "-"), ("soft", ":")):
                if scored:
                    bars = _with_intervals(axis, scored, kind, color=colour, linestyle=line)
                    handles.setdefault(f"{label}, {kind}", bars)
        axis.set(title=f"{benchmark} (n = {max(score.n for score in every)}), accuracy in %", xlabel="step")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(handles.values(), handles, loc="outside upper left", ncols=4, fontsize=8, handlelength=2.8)
    return figure


def _with_intervals(axis: Axes, scored: Sequence[tuple[int, Score]], kind: str, **style: Any) -> ErrorbarContainer:
    middle, low, high = (
        np.array([100 * getattr(score, f"{kind}{end}") for _, score in scored]) for end in ("", "_low", "_high")
    )
    steps = [step for step, _ in scored]
    marker: dict[str, Any] = {
        "marker": "o" if kind == "strict" else "D",
        "markersize": 4,
        "capsize": 2.5,
        "elinewidth": 0.9,
    }
    return axis.errorbar(steps, middle, yerr=np.maximum(0, [middle - low, high - middle]), **marker, **style)


def _curves(
    runs: Sequence[Run],
    panels: Sequence[tuple[str, Callable[[Run], series.Series | None]]],
    with_source: bool = False,
) -> Figure | None:
    drawn = [[(run, read(run)) for run in runs] for _, read in panels]
    if all(values is None for panel in drawn for _, values in panel):
        return None
    figure, axes = new_figure(len(panels))
    for axis, (title, _), panel in zip(axes, panels, drawn, strict=True):
        for colour, (run, values) in zip(_cycle(runs), panel, strict=True):
            if values is not None:
                _curve(axis, values, colour, f"{run.label} ({values.source})" if with_source else run.label)
        axis.set(title=title, xlabel="step")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axis.lines:
            axis.legend(fontsize=8)
    return figure


def _curve(axis: Axes, values: series.Series, colour: str, label: str) -> None:
    count = len(values.steps)
    if count < SMOOTHED_FROM:
        axis.plot(values.steps, values.values, color=colour, label=label, marker="o", markersize=4)
        return
    window = count // 25
    axis.plot(values.steps, values.values, color=colour, alpha=0.25, linewidth=0.8)
    smoothed = series.smooth(values.values, window)
    axis.plot(values.steps, smoothed, color=colour, label=f"{label}, mean of {window} steps")


def _cycle(items: Sequence | Mapping) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(len(items))]
