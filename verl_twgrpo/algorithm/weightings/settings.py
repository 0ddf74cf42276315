"""Checks that settings of weightings share; each raises ``ValueError`` beginning with the setting's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """The value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(choices)}")


def check_number(name: str, value: Any, low: float = 0.0, high: float = float("inf")) -> None:
    """The value is a finite number from low to high, both included."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or value == float("inf"):
        wanted = f"of {low:g} or more" if high == float("inf") else f"from {low:g} to {high:g}"
        raise ValueError(f"{name}={value!r}: need a number {wanted}")
