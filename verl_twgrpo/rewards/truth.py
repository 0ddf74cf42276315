"""Read ground truth and options, and refuse what could not be scored: a bad truth trains on noise without a sound."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

from .answers import CLOSE_TAG, LETTERS, OPEN_TAG, read_letters
from .forms import Box, Interval
from .geometry import clip_box


def option_letters(options: Sized, where: str) -> str:
    """The letters of an item's options, in order: ``"ABCD"`` for four. ``where`` names the row in errors.

    Raises ``ValueError`` if there are no options, or more than letters.
    """
    count = len(options)
    if not 1 <= count <= len(LETTERS):
        raise ValueError(f"{where}: {count} options, need 1 to {len(LETTERS)}")
    return LETTERS[:count]


def read_truth(ground_truth: str, letters: str, where: str) -> frozenset[str]:
    """The set of true letters in ``"A,C"``, or in the released data's form ``"<answer>A,C</answer>"``.

    ``letters`` are those of the item's options, ``where`` names the row in errors.
    Raises ``ValueError`` if the truth is empty, badly written, repeats a letter or names one that is not an option.
    """
    if not isinstance(ground_truth, str):
        raise ValueError(f"{where}: ground truth is a {type(ground_truth).__name__}, need text such as 'A,C'")
    content = ground_truth.strip()
    if content.startswith(OPEN_TAG) and content.endswith(CLOSE_TAG):
        content = content[len(OPEN_TAG) : -len(CLOSE_TAG)]
    if not content.strip():
        raise ValueError(f"{where}: ground truth is empty, the soft reward would be 0/0: leave the row out")
    truth = read_letters(content)
    if truth is None or len(truth) != content.count(",") + 1:
        raise ValueError(f"{where}: ground truth {ground_truth!r} is not a list of different letters such as 'A,C'")
    stray = ",".join(sorted(truth.difference(letters)))
    if stray:
        raise ValueError(f"{where}: ground truth {stray} is not among the options {','.join(letters)}")
    return truth


def parse_json(raw: Any, where: str) -> Any:
    """``raw`` itself, or what it stands for if it is JSON text, as a parquet file holds a truth.

    Raises ``ValueError`` for text that is no JSON.
    """
    if not isinstance(raw, str):
        return raw
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError(f"{where}: ground truth {raw[:80]!r} is not JSON") from None


def fields_of(raw: Any, where: str, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of a truth that is an object, None where an optional one is missing.

    Raises ``ValueError`` naming a missing or unknown field.
    """
    truth = parse_json(raw, where)
    if not isinstance(truth, Mapping):
        raise ValueError(
            f"{where}: ground truth is a {type(truth).__name__}, need an object with {', '.join(required)}"
        )
    for name in required:
        if truth.get(name) is None:
            raise ValueError(f"{where}: ground truth has no {name}")
    unknown = sorted(set(truth) - {*required, *optional})
    if unknown:
        raise ValueError(
            f"{where}: ground truth has an unknown field {unknown[0]}; it takes {', '.join([*required, *optional])}"
        )
    return {name: truth.get(name) for name in (*required, *optional)}


def finite(value: Any, what: str, where: str) -> float:
    """``value`` as a finite number. Raises ``ValueError`` naming what it is."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where}: {what} is {value!r}, need a number")
    return float(value)


def read_duration(value: Any, where: str) -> float | None:
    """The length of the video in seconds, or None if unknown. Raises ``ValueError`` unless it is above 0."""
    if value is None:
        return None
    duration = finite(value, "duration", where)
    if duration <= 0:
        raise ValueError(f"{where}: duration is {value!r}, need seconds above 0")
    return duration


def read_true_intervals(value: Any, duration: float | None, where: str) -> tuple[Interval, ...]:
    """The true intervals in seconds. Raises ``ValueError`` if there are none, or for one that is not in the video.

    An end past the duration by less than a second is cut: annotators round, and so do those who state durations.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError(f"{where}: intervals are {value!r}, need a list of [start, end]")
    intervals = []
    for pair in value:
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise ValueError(f"{where}: interval {pair!r} is not [start, end]")
        start, end = (finite(bound, "an interval's bound", where) for bound in pair)
        if not 0 <= start < end:
            raise ValueError(f"{where}: interval [{start:g}, {end:g}] needs 0 <= start < end")
        if duration is not None and end > duration:
            if end >= duration + 1 or start >= duration:
                raise ValueError(f"{where}: interval [{start:g}, {end:g}] is past the end of the video, {duration:g} s")
            end = duration
        intervals.append((start, end))
    return tuple(intervals)


COORDINATES = ("normalised", "pixel")


@dataclass(frozen=True)
class Frame:
    """What box coordinates mean: parts of the frame's sides (1 x 1), or pixels of a frame of width x height."""

    width: float = 1.0
    height: float = 1.0


def read_frame(coordinates: Any, width: Any, height: Any, where: str) -> Frame:
    """The frame that a truth's boxes lie in; what the numbers mean is declared, never guessed from their size."""
    if coordinates not in COORDINATES:
        raise ValueError(f"{where}: coordinates is {coordinates!r}, need one of {', '.join(COORDINATES)}")
    if coordinates == "normalised":
        return Frame()
    sides = [finite(side, name, where) for name, side in (("width", width), ("height", height))]
    if min(sides) <= 0:
        raise ValueError(f"{where}: width and height of the frame are {sides}, need pixels above 0")
    return Frame(*sides)


def read_true_box(value: Any, frame: Frame, where: str) -> Box:
    """A true box [x1, y1, x2, y2], cut to its frame. Raises ``ValueError`` if nothing of it lies inside."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 4:
        raise ValueError(f"{where}: box {value!r} is not [x1, y1, x2, y2]")
    x1, y1, x2, y2 = (finite(side, "a box's side", where) for side in value)
    box = clip_box((x1, y1, x2, y2), frame.width, frame.height)
    if box is None:
        raise ValueError(f"{where}: box {value!r} has no area in a frame of {frame.width:g} x {frame.height:g}")
    return box
