"""Temporal grounding: when does it happen? Truth: ``{"intervals": [[start, end], ...], "duration": seconds or null}``.

The answer is one interval, or several with ``overlap=union``. Times past the duration are cut off; an answer wholly
past it scores 0, as do reversed ends, intervals without length and negative times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..forms import Interval, read_intervals
from ..geometry import clip_intervals, interval_giou, interval_iou
from ..registry import TaskSettings, require_choice, require_number, task, thinned
from ..truth import fields_of, read_duration, read_true_intervals

RECALL_AT = (0.3, 0.5, 0.7)


@dataclass(frozen=True)
class TemporalGroundingSettings(TaskSettings):
    """How intervals are compared.

    overlap: ``union`` compares the unions of predicted and of true intervals (VideoChat-R1, grpo_gqa.py); ``best``
    takes one predicted interval and the true one that it fits best (VideoAuto-R1, tg_grader.py).
    measure: what is paid. ``iou``; ``iou_v2`` = IoU (1 - |ds|/duration) (1 - |de|/duration) (Time-R1, arXiv
    2503.13377); ``giou`` = (1 + generalised IoU) / 2: near misses are worth more than far ones, and no answer 0.
    The last two compare one interval with one: they need ``overlap=best``; iou_v2 needs the duration.
    threshold: IoU from which an answer counts as right.
    """

    LENIENCIES: ClassVar[frozenset[str]] = TaskSettings.LENIENCIES | {"reversed_ends"}

    overlap: str = "union"
    measure: str = "iou"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("overlap", self.overlap, ("union", "best"))
        require_choice("measure", self.measure, ("iou", "iou_v2", "giou"))
        require_number("threshold", self.threshold, 0.0, 1.0)
        if self.measure != "iou" and self.overlap != "best":
            raise ValueError(f"measure: {self.measure} compares one interval with one; set overlap=best as well")


@dataclass(frozen=True)
class GroundingTruth:
    """True intervals in seconds, and the video's duration where it is known."""

    intervals: tuple[Interval, ...]
    duration: float | None
    where: str = field(compare=False)


def read_grounding(raw: Any, info: Mapping[str, Any], where: str) -> GroundingTruth:
    """The truth of a row. Raises ``ValueError`` with the row for anything but intervals inside the video."""
    truth = fields_of(raw, where, ("intervals",), ("duration",))
    duration = read_duration(truth["duration"], where)
    return GroundingTruth(read_true_intervals(truth["intervals"], duration, where), duration, where)


def written(intervals: tuple[Interval, ...]) -> str:
    """Intervals in the form of an answer: ``[[1.5, 3.0], [7.0, 9.0]]``."""
    return str([list(interval) for interval in intervals])


def predicted_intervals(content: str | None, settings: TaskSettings, duration: float | None) -> tuple | None:
    """The intervals of an answer, cut to the video; None for no answer, empty where all of it is past the end."""
    if content is None:
        return None
    found = read_intervals(content, reversed_ends=settings.allows("reversed_ends"))
    return found if found is None or duration is None else tuple(clip_intervals(found, duration))


def lazy_intervals(truths: Sequence[Any]) -> dict[str, list[Interval]]:
    """Intervals, one per truth, of policies that do not look: truths need ``intervals`` and ``duration``."""
    found = {}
    if all(truth.duration is not None for truth in truths):
        found["the whole video"] = [(0.0, truth.duration) for truth in truths]
        start, end = _best([k / 20 for k in range(21)], thinned(truths), relative=True)
        name = f"the best part of the video: {start:g} to {end:g} of it"
        found[name] = [(start * truth.duration, end * truth.duration) for truth in truths]
    bounds = sorted({round(bound, 2) for truth in truths for interval in truth.intervals for bound in interval})
    start, end = _best(thinned(sorted({0.0, *bounds}), 25), thinned(truths), relative=False)
    found[f"the best seconds: {start:g} to {end:g}"] = [(start, end)] * len(truths)
    return found


def _best(grid: Sequence[float], truths: Sequence[Any], *, relative: bool) -> Interval:
    """The interval between points of ``grid``, seconds or parts of the video, with the largest mean tIoU."""

    def mean_iou(interval: Interval) -> float:
        scales = (truth.duration if relative else 1.0 for truth in truths)
        ends = [(interval[0] * scale, interval[1] * scale) for scale in scales]
        return sum(interval_iou([one], truth.intervals) for one, truth in zip(ends, truths, strict=True))

    return max(((a, b) for k, a in enumerate(grid) for b in grid[k + 1 :]), key=mean_iou, default=(0.0, 1.0))


def _lazy(truths: Sequence[GroundingTruth]) -> dict[str, list[str]]:
    return {
        name: [f"<answer>{written((interval,))}</answer>" for interval in intervals]
        for name, intervals in lazy_intervals(truths).items()
    }


@task(
    "temporal_grounding",
    settings=TemporalGroundingSettings,
    read_truth=read_grounding,
    # the longest of them under "best" would do too; the union is right under both where there is one
    gold=lambda truth: f"<answer>{written(truth.intervals)}</answer>",
    lazy=_lazy,
)
def temporal_grounding(text: str, truth: GroundingTruth, settings: TemporalGroundingSettings) -> dict:
    """tIoU, Time-R1's variant or generalised IoU, with recall at the usual thresholds."""
    found = predicted_intervals(settings.answer(text), settings, truth.duration)
    several = found is not None and settings.overlap == "best" and len(found) > 1
    parsed = found is not None and not several
    if not parsed or not found:
        iou, reward = 0.0, 0.0
    elif settings.overlap == "union":
        iou = reward = interval_iou(found, truth.intervals)
    else:
        best = max(truth.intervals, key=lambda true: interval_giou(found[0], true))
        iou = max(interval_iou(found, [true]) for true in truth.intervals)
        reward = _measure(found[0], best, iou, truth, settings.measure)
    return {
        "reward": reward,
        "accuracy": float(iou >= settings.threshold and iou > 0),
        "soft_accuracy": iou,
        "parsed": float(parsed),
        "iou": iou,
        **{f"recall_{threshold}": float(iou >= threshold) for threshold in RECALL_AT},
    }


def _measure(found: Interval, true: Interval, iou: float, truth: GroundingTruth, measure: str) -> float:
    if measure == "iou":
        return iou
    if measure == "giou":
        return (1 + interval_giou(found, true)) / 2
    if truth.duration is None:
        raise ValueError(
            f"{truth.where}: measure iou_v2 needs the duration of the video, which the truth does not have"
        )
    ends = [1 - abs(a - b) / truth.duration for a, b in zip(found, true, strict=True)]
    # both lie in the video, so neither factor is below 0
    return interval_iou([found], [true]) * ends[0] * ends[1]
