"""Multiple choice: a set of option letters, scored by Eq. 7 or exactly. Truth: ``"A,C"``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

from ..answers import LENIENCIES
from ..registry import TaskSettings, task
from ..scoring import MODES, RewardSettings, letters_of, score_response, soft_reward
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


def best_letters(truths: Sequence[Set[str]]) -> frozenset[str]:
    """The set of letters with the largest mean soft reward (Eq. 7); of more than six letters, of one or two letters."""
    letters = sorted(frozenset().union(*truths))
    largest = len(letters) if len(letters) <= 6 else 2
    sets = [frozenset(chosen) for size in range(1, largest + 1) for chosen in combinations(letters, size)]
    counts = Counter(map(frozenset, truths))
    return max(sets, key=lambda chosen: sum(soft_reward(chosen, truth) * n for truth, n in counts.items()))


def _lazy(truths: Sequence[tuple[frozenset[str], str]]) -> dict[str, list[str]]:
    best = ",".join(sorted(best_letters([letters for letters, _ in truths])))
    return {
        "all letters": [f"<answer>{','.join(options)}</answer>" for _, options in truths],
        f"the best letters: {best}": [f"<answer>{best}</answer>"] * len(truths),
    }


@task(
    "multiple_choice",
    settings=MultipleChoiceSettings,
    read_truth=_read_truth,
    gold=lambda truth: f"<answer>{','.join(sorted(truth[0]))}</answer>",
    lazy=_lazy,
)
def multiple_choice(text: str, truth: tuple[frozenset[str], str], settings: MultipleChoiceSettings) -> dict:
    """The scores of the manager ``multi_answer``, to the bit."""
    scores = score_response(text, *truth, RewardSettings(settings.mode, settings.lenient, format_weight=0.0))
    reward = scores["soft_accuracy"] if settings.mode == "soft" else scores["accuracy"]
    return {name: scores[name] for name in scores if name not in ("score", "acc", "format")} | {"reward": reward}
