"""Grounded question answering: the right letters, and when one sees it.

Truth: ``{"letters": "C", "intervals": [[start, end], ...], "duration": seconds or null}``. The answer:
``<answer>C</answer><glue>[[3.0, 7.5]]</glue>`` (VideoChat-R1, grpo_gqa.py), with nothing behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, ClassVar

from ..answers import LENIENCIES, parse_answer
from ..forms import ANSWER_CHARS, Interval
from ..geometry import interval_iou, length, shared_length
from ..registry import TaskSettings, require_choice, require_number, task
from ..scoring import MODES, exact_reward, format_reward, letters_of, soft_reward
from ..truth import fields_of, read_duration, read_true_intervals, read_truth
from .multiple_choice import best_letters
from .temporal_grounding import RECALL_AT, lazy_intervals, predicted_intervals, written

OPEN_GLUE, CLOSE_GLUE = "<glue>", "</glue>"
IOP_AT = (0.3, 0.5)
"""Thresholds of intersection over prediction that NExT-GQA reports."""


@dataclass(frozen=True)
class GroundedQASettings(TaskSettings):
    """reward = letter_weight x letters + interval_weight x tIoU.

    letter_weight, interval_weight: 0.5 each, so that all is worth 1; VideoChat-R1 and VideoAuto-R1 take 1 and 1.
    mode: letters by ``soft`` (Eq. 7) or ``exact``. threshold: intersection over prediction (IoP) from which an answer
    with the right letters counts as right (Acc@GQA of NExT-GQA: 0.5).
    """

    LENIENCIES: ClassVar[frozenset[str]] = LENIENCIES | {"reversed_ends"}

    letter_weight: float = 0.5
    interval_weight: float = 0.5
    mode: str = "soft"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("letter_weight", self.letter_weight)
        require_number("interval_weight", self.interval_weight)
        if not self.letter_weight + self.interval_weight > 0:
            raise ValueError("letter_weight: with interval_weight 0 as well nothing is paid")
        require_choice("mode", self.mode, MODES)
        require_number("threshold", self.threshold, 0.0, 1.0)


@dataclass(frozen=True)
class GroundedTruth:
    """True letters, true intervals in seconds, and the video's duration where it is known."""

    letters: frozenset[str]
    intervals: tuple[Interval, ...]
    duration: float | None


def _read_truth(raw: Any, info: Mapping[str, Any], where: str) -> GroundedTruth:
    truth = fields_of(raw, where, ("letters", "intervals"), ("duration",))
    duration = read_duration(truth["duration"], where)
    letters = read_truth(truth["letters"], letters_of(info, where), where)
    return GroundedTruth(letters, read_true_intervals(truth["intervals"], duration, where), duration)


def split_glue(text: str) -> tuple[str, str | None]:
    """The text before the one pair of glue tags at its end, and what stands in the pair; None without such a pair."""
    if text.count(OPEN_GLUE) != 1 or text.count(CLOSE_GLUE) != 1:
        return text, None
    before, _, rest = text.partition(OPEN_GLUE)
    content, closed, after = rest.partition(CLOSE_GLUE)
    return (before, content) if closed and not after.strip() else (text, None)


def glue_format(text: str, strict: bool) -> float:
    """1 if the thinking, the answer and the glue stand in their tags, in this order."""
    before, content = split_glue(text)
    return format_reward(before, strict) if content is not None else 0.0


def _gold(letters: Set[str], intervals: tuple[Interval, ...]) -> str:
    return f"<answer>{','.join(sorted(letters))}</answer>{OPEN_GLUE}{written(intervals)}{CLOSE_GLUE}"


def _lazy(truths: Sequence[GroundedTruth]) -> dict[str, list[str]]:
    """The best letters with each of the intervals of temporal grounding."""
    letters = best_letters([truth.letters for truth in truths])
    return {
        f"{','.join(sorted(letters))}, {name}": [_gold(letters, (interval,)) for interval in intervals]
        for name, intervals in lazy_intervals(truths).items()
    }


@task(
    "grounded_qa",
    settings=GroundedQASettings,
    read_truth=_read_truth,
    gold=lambda truth: _gold(truth.letters, truth.intervals),
    lazy=_lazy,
    form=glue_format,
)
def grounded_qa(text: str, truth: GroundedTruth, settings: GroundedQASettings) -> dict:
    """Letters and tIoU, weighted; accuracy is NExT-GQA's Acc@GQA: right letters, and IoP at the threshold."""
    before, glue = split_glue(text)
    letter_rules = [rule for rule in LENIENCIES if settings.allows(rule)]
    letters = parse_answer(before, letter_rules)
    if glue is not None and len(glue) > ANSWER_CHARS:
        glue = None
    found = predicted_intervals(glue, settings, truth.duration)
    iou = interval_iou(found, truth.intervals) if found else 0.0
    iop = min(1.0, shared_length(found, truth.intervals) / length(found)) if found else 0.0
    exact, soft = exact_reward(letters, truth.letters), soft_reward(letters, truth.letters)
    reward = settings.letter_weight * (soft if settings.mode == "soft" else exact) + settings.interval_weight * iou
    total = settings.letter_weight + settings.interval_weight
    return {
        "reward": reward,
        "accuracy": float(exact == 1.0 and iop >= settings.threshold and iop > 0),
        "soft_accuracy": (settings.letter_weight * soft + settings.interval_weight * iou) / total,
        "parsed": float(letters is not None and found is not None),
        "letters_accuracy": exact,
        "iou": iou,
        "iop": iop,
        **{f"recall_{threshold}": float(iou >= threshold) for threshold in RECALL_AT},
        **{f"iop_{threshold}": float(iop >= threshold) for threshold in IOP_AT},
        "accuracy_iou_0.5": float(exact == 1.0 and iou >= 0.5),
    }
