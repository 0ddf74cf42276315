"""Top-entropy tokens: only those of high entropy learn (arXiv 2506.01939, "80/20", NeurIPS 2025).

w_it = 1 if H_it >= the (1 - keep) quantile of H over the scope, else 0; keep = 0.2 in the paper, whose quantile is over
the batch. TRL's and ms-swift's ``top_entropy_quantile`` is ``keep``, their scope the tokens of a micro-step.

Differences: the paper divides by the number of kept tokens, verl's loss by all of them; ``normalise=batch`` (in the
preset) makes the two equal. The paper has it on DAPO, and finds no gain on small models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from verl_twgrpo.algorithm.weightings.base import WEIGHTINGS, Group, Weighting
from verl_twgrpo.algorithm.weightings.scores import top_share
from verl_twgrpo.algorithm.weightings.settings import check_choice, check_number

QuantileScope = Literal["response", "group", "batch"]


@dataclass(frozen=True)
class TopEntropySettings:
    """keep: share of tokens that are kept, 1 keeps all. scope: over which tokens the quantile is taken."""

    keep: float = 0.2
    scope: str = "batch"

    def __post_init__(self) -> None:
        check_number("keep", self.keep, 0, 1)
        check_choice("scope", self.scope, get_args(QuantileScope))


@WEIGHTINGS.register
class TopEntropy(Weighting):
    """1 for the tokens of highest entropy, 0 for the others."""

    name = "top_entropy"
    Settings = TopEntropySettings
    off = {"keep": 1.0}
    columns = ("entropy",)

    @property
    def active(self) -> bool:
        return self.settings.keep < 1

    def weigh(self, group: Group) -> list[torch.Tensor]:
        return self.weigh_step([group])[0]

    def weigh_step(self, groups: Sequence[Group]) -> list[list[torch.Tensor]]:
        weights = [[torch.ones(length) for length in group.lengths] for group in groups]
        responses = [[(g, r) for r in range(len(group.masks))] for g, group in enumerate(groups)]
        if self.settings.scope == "batch":
            pools = [[one for of_group in responses for one in of_group]]
        elif self.settings.scope == "group":
            pools = responses
        else:
            pools = [[one] for of_group in responses for one in of_group]
        for pool in pools:
            own = [groups[g].columns["entropy"][r][groups[g].masks[r]] for g, r in pool]
            if not own:
                continue
            kept = top_share(torch.cat(own), self.settings.keep).float().split([len(part) for part in own])
            for (g, r), part in zip(pool, kept, strict=True):
                weights[g][r][groups[g].masks[r]] = part
        return weights
