"""Entropy shaping of the advantage (arXiv 2506.14758, AAAI 2026): A_it += min(alpha H_it, |A_it| / kappa).

As a factor on A: w_it = 1 + sign(A_it) min(alpha H_it / |A_it|, 1 / kappa), and 1 where A_it = 0. It lies in
[1 - 1/kappa, 1 + 1/kappa]: right responses learn more where the model was unsure, wrong ones are blamed less there.
alpha = 0.4 for GRPO and kappa = 2 in the paper. No gradient flows through H: it is that of the old policy, as the
paper's stop-gradient has it at the first update of a batch; with several updates theirs is recomputed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from verl_twgrpo.algorithm.weightings.base import WEIGHTINGS, Group, Weighting
from verl_twgrpo.algorithm.weightings.settings import check_number


@dataclass(frozen=True)
class EntropyShapingSettings:
    """alpha: of the entropy in nats. kappa: the term is at most |A| / kappa; 1 or more, so that no sign flips."""

    alpha: float = 0.4
    kappa: float = 2.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)
        check_number("kappa", self.kappa, 1)


@WEIGHTINGS.register
class EntropyShaping(Weighting):
    """An entropy bonus on the advantage, as a factor."""

    name = "entropy_shaping"
    Settings = EntropyShapingSettings
    off = {"alpha": 0.0}
    columns = ("entropy", "advantages")

    @property
    def active(self) -> bool:
        return self.settings.alpha > 0

    def weigh(self, group: Group) -> list[torch.Tensor]:
        weights = []
        for entropy_L, advantages_L in zip(group.columns["entropy"], group.columns["advantages"], strict=True):
            size_L = advantages_L.abs()
            bonus_L = (self.settings.alpha * entropy_L / torch.where(size_L > 0, size_L, 1.0)).clamp(
                max=1 / self.settings.kappa
            )
            weights.append(1 + advantages_L.sign() * bonus_L)
        return weights
