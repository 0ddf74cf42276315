"""Tracking: a box per frame.

Truth: ``{"boxes": [[x1, y1, x2, y2] or null, ...], "coordinates": "normalised" | "pixel", "width", "height"}``, a null
where the object is not in the frame. The answer is a list of boxes, the k-th for frame k; ``null`` skips a frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..forms import Box, read_boxes
from ..geometry import box_iou, clip_box
from ..registry import TaskSettings, require_number, task
from ..truth import Frame, fields_of, read_frame, read_true_box


@dataclass(frozen=True)
class BoxSettings(TaskSettings):
    """threshold: mean IoU from which an answer counts as right."""

    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("threshold", self.threshold, 0.0, 1.0)


@dataclass(frozen=True)
class TrackTruth:
    """A box for each frame, None where the object is out of sight; coordinates in ``frame``."""

    boxes: tuple[Box | None, ...]
    frame: Frame


def _read_truth(raw: Any, info: Mapping[str, Any], where: str) -> TrackTruth:
    truth = fields_of(raw, where, ("boxes", "coordinates"), ("width", "height"))
    frame = read_frame(truth["coordinates"], truth["width"], truth["height"], where)
    if not isinstance(truth["boxes"], Sequence) or isinstance(truth["boxes"], str):
        raise ValueError(f"{where}: boxes are {truth['boxes']!r}, need a list with a box or null for each frame")
    boxes = tuple(None if box is None else read_true_box(box, frame, where) for box in truth["boxes"])
    if not any(boxes):
        raise ValueError(f"{where}: the track has no box in any frame")
    return TrackTruth(boxes, frame)


def written(boxes: Sequence[Box | None]) -> str:
    """Boxes in the form of an answer."""
    return "[" + ", ".join("null" if box is None else str(list(box)) for box in boxes) + "]"


def clipped_iou(box: Box | None, true: Box, frame: Frame) -> float:
    """IoU of a predicted box, cut to the frame, with a true one; 0 for no box."""
    inside = None if box is None else clip_box(box, frame.width, frame.height)
    return 0.0 if inside is None else box_iou(inside, true)


def mean_box(boxes: Sequence[tuple[Box, Frame]]) -> Box:
    """The mean of boxes as parts of their frames."""
    sides = [[box[k] / (frame.height if k % 2 else frame.width) for box, frame in boxes] for k in range(4)]
    x1, y1, x2, y2 = (sum(side) / len(side) for side in sides)
    return x1, y1, x2, y2


def scaled(box: Box, frame: Frame) -> Box:
    """A box given as parts of ``frame`` in its coordinates."""
    return box[0] * frame.width, box[1] * frame.height, box[2] * frame.width, box[3] * frame.height


WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def _lazy(truths: Sequence[TrackTruth]) -> dict[str, list[str]]:
    """Of a first box all need to be told one: trackers usually are."""
    mean = mean_box([(box, truth.frame) for truth in truths for box in truth.boxes if box is not None])
    first = [next(box for box in truth.boxes if box is not None) for truth in truths]
    tracks: dict[str, list[list[Box | None]]] = {
        "the whole frame, always": [[scaled(WHOLE, truth.frame)] * len(truth.boxes) for truth in truths],
        "the mean box, always": [[scaled(mean, truth.frame)] * len(truth.boxes) for truth in truths],
        "its first box, always": [[box] * len(truth.boxes) for box, truth in zip(first, truths, strict=True)],
        "its first box, in its first frame": [
            [box if true is box else None for true in truth.boxes] for box, truth in zip(first, truths, strict=True)
        ],
    }
    return {name: [f"<answer>{written(track)}</answer>" for track in found] for name, found in tracks.items()}


@task(
    "tracking",
    settings=BoxSettings,
    read_truth=_read_truth,
    gold=lambda truth: f"<answer>{written(truth.boxes)}</answer>",
    lazy=_lazy,
)
def tracking(text: str, truth: TrackTruth, settings: BoxSettings) -> dict:
    """Mean IoU over the frames in which the truth has a box: a frame without a predicted box counts as 0.

    More boxes than frames are no answer.
    """
    content = settings.answer(text)
    boxes = None if content is None else read_boxes(content)
    if boxes is not None and len(boxes) > len(truth.boxes):
        boxes = None
    track = list(boxes or ()) + [None] * (len(truth.boxes) - len(boxes or ()))
    ious = [
        clipped_iou(box, true, truth.frame) for box, true in zip(track, truth.boxes, strict=True) if true is not None
    ]
    iou = min(1.0, sum(ious) / len(ious))
    return {
        "accuracy": float(iou >= settings.threshold and iou > 0),
        "soft_accuracy": iou,
        "parsed": float(boxes is not None),
        "iou": iou,
        "boxes_missing": sum(box is None and true is not None for box, true in zip(track, truth.boxes, strict=True)),
    }
