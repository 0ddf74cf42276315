"""Overlap of intervals on a line and of boxes in a plane. Nothing here divides by an empty union."""

from __future__ import annotations

from collections.abc import Sequence

from .forms import Box, Interval


def merge(intervals: Sequence[Interval]) -> list[Interval]:
    """The union of the intervals as disjoint ones, in order."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def length(intervals: Sequence[Interval]) -> float:
    """Length of the union of the intervals."""
    return sum(end - start for start, end in merge(intervals))


def shared_length(a: Sequence[Interval], b: Sequence[Interval]) -> float:
    """Length of the intersection of two unions of intervals, in one walk along the line."""
    a, b = merge(a), merge(b)
    shared, i, j = 0.0, 0, 0
    while i < len(a) and j < len(b):
        shared += max(0.0, min(a[i][1], b[j][1]) - max(a[i][0], b[j][0]))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return shared


def interval_iou(a: Sequence[Interval], b: Sequence[Interval]) -> float:
    """Intersection over union of two unions of intervals (tIoU); 0 where the union has no length."""
    shared = shared_length(a, b)
    union = length(a) + length(b) - shared
    # the union is computed as a difference: rounding must not lift two equal sets above 1
    return min(1.0, shared / union) if union > 0 else 0.0


def interval_giou(a: Interval, b: Interval) -> float:
    """Generalised IoU of two intervals in (-1, 1]: IoU less the part of their hull that neither covers."""
    hull = max(a[1], b[1]) - min(a[0], b[0])
    if not hull > 0:
        return 0.0
    shared = shared_length([a], [b])
    union = length([a]) + length([b]) - shared
    return interval_iou([a], [b]) - max(0.0, hull - union) / hull


def clip_intervals(intervals: Sequence[Interval], duration: float) -> list[Interval]:
    """The parts of the intervals in [0, duration]; those without any are dropped."""
    cut = [(max(0.0, start), min(duration, end)) for start, end in intervals]
    return [(start, end) for start, end in cut if start < end]


def clip_box(box: Box, width: float, height: float) -> Box | None:
    """The part of the box in the frame, or None where there is none."""
    x1, y1, x2, y2 = max(0.0, box[0]), max(0.0, box[1]), min(width, box[2]), min(height, box[3])
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2); 0 where the union has no area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = width * height if width > 0 and height > 0 else 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return min(1.0, shared / union) if union > 0 else 0.0
