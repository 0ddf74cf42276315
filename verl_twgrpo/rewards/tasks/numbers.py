"""Answers that are one number: ``numeric`` (equal or not), ``regression`` (how near) and ``counting``.

Truth: a number, its text (``"12.5"``), or ``{"number": 12.5, "unit": "m"}``. An answer may repeat the truth's unit
behind the number; units are never converted, and any other word makes it no answer. A comma may part thousands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..forms import read_integer, read_number
from ..registry import TaskSettings, require_choice, require_number, task, thinned
from ..truth import fields_of, finite, parse_json

MRA_THRESHOLDS = tuple(k / 20 for k in range(10, 20))
"""0.5, 0.55, ..., 0.95 of mean relative accuracy."""


@dataclass(frozen=True)
class NumericSettings(TaskSettings):
    """tolerance: largest difference at which two numbers are equal (0: equal but for rounding of binary fractions)."""

    tolerance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("tolerance", self.tolerance)


@dataclass(frozen=True)
class RegressionSettings(TaskSettings):
    """measure: what is paid. ``mra``, mean relative accuracy (OneThinker, arXiv 2512.03043), or ``relative_error``,
    1 - |error| / |truth| down to 0 (Video-R1). threshold: relative error below which an answer counts as right.
    """

    measure: str = "mra"
    threshold: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("measure", self.measure, ("mra", "relative_error"))
        require_number("threshold", self.threshold, 0.0, 1.0)


@dataclass(frozen=True)
class Quantity:
    """A number and its unit, "" for none."""

    value: float
    unit: str = ""


def _read_truth(raw: Any, info: Mapping[str, Any], where: str) -> Quantity:
    value = read_number(raw) if isinstance(raw, str) else None
    if value is not None:
        return Quantity(value)
    raw = parse_json(raw, where)
    if isinstance(raw, Mapping):
        truth = fields_of(raw, where, ("number",), ("unit",))
        unit = truth["unit"] or ""
        if not isinstance(unit, str) or unit.strip()[:1] in tuple("0123456789+-.,"):
            raise ValueError(f"{where}: unit {unit!r} is no unit")
        return Quantity(finite(truth["number"], "number", where), unit.strip())
    return Quantity(finite(raw, "ground truth", where))


def read_quantity(content: str, unit: str = "") -> float | None:
    """The number that an answer consists of, with ``unit`` behind it or not; None for anything else."""
    text = content.strip()
    unit = unit.strip()
    if unit and text[-len(unit) :].casefold() == unit.casefold():
        text = text[: -len(unit)].rstrip()
    head, *groups = text.split(",")
    if groups:
        last, point, fraction = groups[-1].partition(".")
        parts = [*groups[:-1], last]
        digits = head.lstrip("+-")
        if not 1 <= len(digits) <= 3 or len(head) - len(digits) > 1 or any(len(part) != 3 for part in parts):
            return None
        if not all(part.isdecimal() and part.isascii() for part in (digits, *parts)):
            return None
        text = head + "".join(parts) + point + fraction
    return read_number(text)


def mean_relative_accuracy(value: float, truth: float) -> float:
    """Share of the thresholds t in .5 to .95 at which the relative error is below 1 - t."""
    error = relative_error(value, truth)
    # 1 - 0.95 is a little more than 0.05 in binary: without the slack the rungs would move
    return sum(error < 1 - threshold - 1e-12 for threshold in MRA_THRESHOLDS) / len(MRA_THRESHOLDS)


def relative_error(value: float, truth: float) -> float:
    """|value - truth| / |truth|; against a truth of 0: 0 if equal, else 1."""
    if truth == 0:
        return float(value != 0)
    return min(abs(value - truth) / abs(truth), 1e308)


def _gold(truth: Quantity) -> str:
    return f"<answer>{truth.value!r}</answer>"


def _answer(text: str, truth: Quantity, settings: TaskSettings) -> float | None:
    content = settings.answer(text)
    return None if content is None else read_quantity(content, truth.unit)


def _lazy(truths: Sequence[Quantity]) -> dict[str, list[str]]:
    """The number with the largest mean relative accuracy, out of true ones."""
    values = [truth.value for truth in truths]
    sample = thinned(sorted(values))
    best = max(thinned(sorted(set(values)), 100), key=lambda v: sum(mean_relative_accuracy(v, t) for t in sample))
    return {f"the best number: {best:g}": [f"<answer>{best!r}</answer>"] * len(truths)}


@task("numeric", settings=NumericSettings, read_truth=_read_truth, gold=_gold)
def numeric(text: str, truth: Quantity, settings: NumericSettings) -> dict:
    """1 if the numbers are equal."""
    value = _answer(text, truth, settings)
    equal = value is not None and (
        math.isclose(value, truth.value, rel_tol=1e-9) or abs(value - truth.value) <= settings.tolerance
    )
    return {"accuracy": float(equal), "parsed": float(value is not None)}


@task("regression", settings=RegressionSettings, read_truth=_read_truth, gold=_gold, lazy=_lazy)
def regression(text: str, truth: Quantity, settings: RegressionSettings) -> dict:
    """Mean relative accuracy, or 1 less the relative error."""
    value = _answer(text, truth, settings)
    if value is None:
        scores, error = {"mra": 0.0, "relative_error": 0.0}, None
    else:
        error = relative_error(value, truth.value)
        scores = {"mra": mean_relative_accuracy(value, truth.value), "relative_error": max(0.0, 1.0 - error)}
    return {
        "accuracy": float(error is not None and error < settings.threshold),
        "soft_accuracy": scores[settings.measure],
        "parsed": float(value is not None),
        "mra": scores["mra"],
        "relative_accuracy": scores["relative_error"],
    }


def _read_count(raw: Any, info: Mapping[str, Any], where: str) -> int:
    value = read_integer(raw) if isinstance(raw, str) else raw
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{where}: ground truth is {raw!r}, need an integer")
    return value


@task("counting", read_truth=_read_count)
def counting(text: str, truth: int, settings: TaskSettings) -> dict:
    """1 if the answer is the very integer. ``count_error`` is the absolute error where there is an answer."""
    content = settings.answer(text)
    value = None if content is None else read_integer(content)
    error = None if value is None else float(min(abs(value - truth), 10**9))
    return {"accuracy": float(value == truth), "parsed": float(value is not None), "count_error": error}
