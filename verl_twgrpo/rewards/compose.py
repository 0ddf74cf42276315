"""From the parts of a task's score to the number that the policy is paid: weights, format and length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .registry import Parts, Task, TaskSettings, require_number

MIN_ACCURACY_FOR_LENGTH = 0.1


@dataclass(frozen=True)
class Composition:
    """score = accuracy_weight x reward + format_weight x format + length terms. The defaults are the released recipe.

    accuracy_weight, format_weight: at least 0. strict_format: demand the strict variant of the format.
    length_bonus: added where the soft accuracy is above 0.1 and the response has ``length_window`` tokens, both ends
    included (Video-R1, src/r1-v/src/open_r1/trainer/grpo_trainer.py: 0.2 and 320 to 512; there only if a second
    response of the group is above 0.1 too, which a score of one response cannot see).
    overlong_buffer: tokens before ``max_tokens`` in which a penalty grows linearly from 0 to ``overlong_penalty``
    (DAPO, arXiv 2503.14476, Eq. 13). 0 turns it off. ``max_tokens`` is data.max_response_length unless it is set.

    Raises ``ValueError`` naming the setting.
    """

    accuracy_weight: float = 1.0
    format_weight: float = 1.0
    strict_format: bool = False
    length_bonus: float = 0.0
    length_window: Sequence[int] = (320, 512)
    overlong_buffer: int = 0
    overlong_penalty: float = 1.0
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("accuracy_weight", "format_weight", "length_bonus", "overlong_penalty"):
            require_number(name, getattr(self, name))
        if not isinstance(self.strict_format, bool):
            raise ValueError(f"strict_format: {self.strict_format!r} is neither true nor false")
        window = self.length_window
        whole = isinstance(window, Sequence) and len(window) == 2 and all(map(_is_count, window))
        if not (whole and window[0] <= window[1]):
            raise ValueError(f"length_window: {window!r} is not [shortest, longest] in tokens")
        if not _is_count(self.overlong_buffer):
            raise ValueError(f"overlong_buffer: {self.overlong_buffer!r} is not a number of tokens")
        if self.max_tokens is not None and not (_is_count(self.max_tokens) and self.max_tokens > 0):
            raise ValueError(f"max_tokens: {self.max_tokens!r} is not a number of tokens")
        if self.max_tokens is not None and self.overlong_buffer > self.max_tokens:
            raise ValueError(
                f"overlong_buffer: {self.overlong_buffer} tokens are more than a response may have ({self.max_tokens})"
            )

    def length_terms(self, soft: float, tokens: int | None) -> float:
        """Bonus and penalty for a response of ``tokens`` tokens; ``soft`` is its soft accuracy."""
        if tokens is None or not (self.length_bonus or self.overlong_buffer):
            return 0.0
        low, high = self.length_window
        bonus = self.length_bonus if soft > MIN_ACCURACY_FOR_LENGTH and low <= tokens <= high else 0.0
        if not self.overlong_buffer or self.max_tokens is None:
            return bonus
        excess = tokens - (self.max_tokens - self.overlong_buffer)
        return bonus - self.overlong_penalty * min(1.0, max(0.0, excess / self.overlong_buffer))

    def total(self, parts: Parts, form: float, tokens: int | None) -> dict[str, float | None]:
        """All scores of one response: score, acc, accuracy, soft_accuracy, format, parsed, and the task's own."""
        accuracy = _known(parts, "accuracy")
        soft = _known(parts, "soft_accuracy", accuracy)
        reward = _known(parts, "reward", soft)
        length = self.length_terms(soft, tokens)
        score = self.accuracy_weight * reward + self.format_weight * form
        named = {
            "score": score + length if length else score,
            # verl's name for its core metric, which counts as 0 where a rollout failed
            "acc": accuracy,
            "accuracy": accuracy,
            "soft_accuracy": soft,
            "format": form,
            "parsed": parts.get("parsed", 1.0),
        }
        if self.length_bonus or self.overlong_buffer:
            named["length_reward"] = length
        return named | {name: value for name, value in parts.items() if name not in named and name != "reward"}


def _known(parts: Parts, name: str, default: float | None = None) -> float:
    value = parts.get(name, default)
    assert value is not None, f"{name}: a number, as checked() has seen"
    return value


def read_settings(task: Task, settings: Mapping[str, Any] | None) -> tuple[Composition, TaskSettings]:
    """Settings of composition and task out of one mapping. Raises ``ValueError`` for an unknown name or a bad value."""
    settings = dict(settings or {})
    common = {name: settings.pop(name) for name in _names(Composition) if name in settings}
    unknown = sorted(set(settings) - set(_names(task.settings)))
    if unknown:
        known = ", ".join([*_names(task.settings), *_names(Composition)])
        raise ValueError(f"{unknown[0]}: no such reward setting of task {task.name}; there are {known}")
    return Composition(**common), task.settings(**settings)


def checked(task: Task, parts: Parts) -> Parts:
    """The parts of a task's score. Raises ``ValueError`` for one that is neither a finite number nor None.

    The built-in tasks never fail here; a task of a user's own might, and NaN would train on in silence.
    """
    if "accuracy" not in parts:
        raise ValueError(f"task {task.name}: its function returned no accuracy, only {', '.join(parts) or 'nothing'}")
    for name, value in parts.items():
        if value is None and name not in ("accuracy", "soft_accuracy", "reward"):
            continue
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"task {task.name}: {name} is {value!r}, need a finite number")
    return parts


def _names(of: type) -> list[str]:
    return [field.name for field in fields(of)]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
