"""Spatial grounding: where is it, in one picture or frame?

Truth: ``{"boxes": [[x1, y1, x2, y2], ...], "coordinates": "normalised" | "pixel", "width", "height"}``. The answer is a
box or a list of boxes, in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..forms import Box, read_boxes
from ..registry import task
from ..truth import Frame, fields_of, read_frame, read_true_box
from .tracking import WHOLE, BoxSettings, clipped_iou, mean_box, scaled, written

MAX_BOXES_PER_TRUE_BOX = 20
"""More boxes than this for each true one are no answer: at best they would score 1/20."""


@dataclass(frozen=True)
class BoxesTruth:
    """True boxes with coordinates in ``frame``."""

    boxes: tuple[Box, ...]
    frame: Frame


def _read_truth(raw: Any, info: Mapping[str, Any], where: str) -> BoxesTruth:
    truth = fields_of(raw, where, ("boxes", "coordinates"), ("width", "height"))
    frame = read_frame(truth["coordinates"], truth["width"], truth["height"], where)
    boxes = truth["boxes"]
    if not isinstance(boxes, Sequence) or isinstance(boxes, str) or not boxes:
        raise ValueError(f"{where}: boxes are {boxes!r}, need a list of [x1, y1, x2, y2]")
    return BoxesTruth(tuple(read_true_box(box, frame, where) for box in boxes), frame)


def matched_iou(boxes: Sequence[Box], truth: BoxesTruth) -> float:
    """Sum of IoU under the best one-to-one matching, over the larger number of boxes: a surplus box costs its share."""
    rows = [[clipped_iou(box, true, truth.frame) for true in truth.boxes] for box in boxes]
    if len(truth.boxes) == 1:
        best = max(row[0] for row in rows)
    else:
        from scipy.optimize import linear_sum_assignment

        best = sum(rows[i][j] for i, j in zip(*linear_sum_assignment(rows, maximize=True), strict=True))
    return min(1.0, best / max(len(boxes), len(truth.boxes)))


def _lazy(truths: Sequence[BoxesTruth]) -> dict[str, list[str]]:
    mean = mean_box([(box, truth.frame) for truth in truths for box in truth.boxes])
    return {
        name: [f"<answer>{written([scaled(box, truth.frame)])}</answer>" for truth in truths]
        for name, box in (("the whole frame", WHOLE), ("the mean box", mean))
    }


@task(
    "spatial_grounding",
    settings=BoxSettings,
    read_truth=_read_truth,
    gold=lambda truth: f"<answer>{written(truth.boxes)}</answer>",
    lazy=_lazy,
)
def spatial_grounding(text: str, truth: BoxesTruth, settings: BoxSettings) -> dict:
    """IoU, or for several boxes the mean IoU of the best matching."""
    content = settings.answer(text)
    read = None if content is None else read_boxes(content)
    boxes = None if read is None or None in read else [box for box in read if box is not None]
    if boxes is not None and len(boxes) > MAX_BOXES_PER_TRUE_BOX * len(truth.boxes):
        boxes = None
    iou = matched_iou(boxes, truth) if boxes else 0.0
    return {
        "accuracy": float(iou >= settings.threshold and iou > 0),
        "soft_accuracy": iou,
        "parsed": float(boxes is not None),
        "iou": iou,
    }
