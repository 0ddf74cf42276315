"""Multiple choice: a set of option letters, scored by Eq. 7 or exactly. Truth: ``"A,C"``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..answers import LENIENCIES
from ..registry import TaskSettings, task
from ..scoring import MODES, RewardSettings, letters_of, score_response
from ..truth import read_truth


@dataclass(frozen=True)
class MultipleChoiceSettings(TaskSettings):
    """mode: what is paid, ``soft`` (Eq. 7) or ``exact``. lenient: as of every task, with the rules for letters."""

    LENIENCIES: ClassVar[frozenset[str]] = LENIENCIES

    lenient: bool | Iterable[str] = False
    mode: str = "soft"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            raise ValueError(f"mode: {self.mode!r} is not one of {', '.join(MODES)}")


def _read_truth(raw: Any, info: Mapping[str, Any], where: str) -> tuple[frozenset[str], str]:
    letters = letters_of(info, where)
    return read_truth(raw, letters, where), letters


@task(
    "multiple_choice",
    settings=MultipleChoiceSettings,
    read_truth=_read_truth,
    gold=lambda truth: f"<answer>{','.join(sorted(truth[0]))}</answer>",
)
def multiple_choice(text: str, truth: tuple[frozenset[str], str], settings: MultipleChoiceSettings) -> dict:
    """The scores of the manager ``multi_answer``, to the bit."""
    scores = score_response(text, *truth, RewardSettings(settings.mode, settings.lenient, format_weight=0.0))
    reward = scores["soft_accuracy"] if settings.mode == "soft" else scores["accuracy"]
    return {name: scores[name] for name in scores if name not in ("score", "acc", "format")} | {"reward": reward}
