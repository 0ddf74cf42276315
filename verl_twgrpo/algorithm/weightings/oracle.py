"""The oracle: weights from the data, for tasks in which it is known which words decide. A control, not a method.

``extra_info.decisive`` of a row is a list of words or phrases. Tokens with a character of one of them weigh ``high``,
the response's others ``low``; where the row names none, or the response has none of them, all weigh 1. If the oracle
does not help on a task, no weighting of its tokens can be expected to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from verl_twgrpo.algorithm.weightings.base import WEIGHTINGS, Group, TextColumn, Weighting
from verl_twgrpo.algorithm.weightings.settings import check_number
from verl_twgrpo.algorithm.weightings.text import ResponseText

DECISIVE = "decisive"


@dataclass(frozen=True)
class OracleSettings:
    """high: weight of tokens that decide. low: of the response's others. By default the range of tw_grpo's weights."""

    high: float = 1.7
    low: float = 1.0

    def __post_init__(self) -> None:
        check_number("high", self.high)
        check_number("low", self.low)
        if self.low > self.high:
            raise ValueError(f"low={self.low!r}: above high={self.high!r}")


def read_decisive(value: Any) -> list[str]:
    """The words of a row; none where it has none. Raises ``ValueError`` for anything but a list of texts."""
    words = [] if value is None else value
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) and word.strip() for word in words):
        raise ValueError(f"need a list of words or phrases, got {value!r:.60}")
    return list(words)


def mark_decisive(text: ResponseText, words: list[str]) -> torch.Tensor:
    """1 where a token has a character of one of the words, else 0; [L] float."""
    return text.tokens_of_words(words).float()


@WEIGHTINGS.register
class Oracle(Weighting):
    """High weights on the tokens that the data says decide."""

    name = "oracle"
    Settings = OracleSettings
    off: ClassVar[Mapping[str, float]] = {"high": 1.0, "low": 1.0}
    columns = (DECISIVE,)
    text_columns: Mapping[str, TextColumn] = {DECISIVE: TextColumn(DECISIVE, read_decisive, mark_decisive)}

    @property
    def active(self) -> bool:
        return self.settings.high != 1 or self.settings.low != 1

    def weigh(self, group: Group) -> list[torch.Tensor]:
        weights = []
        for decisive_L, mask in zip(group.columns[DECISIVE], group.masks, strict=True):
            decides_L = (decisive_L > 0) & mask
            weights_L = torch.where(decides_L, self.settings.high, self.settings.low)
            weights.append(weights_L if decides_L.any() else torch.ones_like(decisive_L))
        return weights
