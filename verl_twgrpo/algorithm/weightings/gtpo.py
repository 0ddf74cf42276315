"""GTPO's token weights (arXiv 2508.04349v6, ICML 2026): share a position's credit by entropy.

Among the responses with A > 0 that are live at position t, d_t of them: w_it = 1 - a + a d_t H_it / sum_k H_kt. Among
those with A < 0: w_it = 1 - a + a h_t (1 / H_it) / sum_k 1 / H_kt, so that blame goes to where the model was sure. The
paper has a = 0.1. The mean over each side at a position is 1: what a token gains another one loses.

Differences: the paper shares token rewards and then normalises those of right and of wrong responses separately, which
moves even their mean to 0; here the advantage stays that of the group and the share is a factor on it. The two sides
are the signs of the advantage, so that rewards between 0 and 1 have one too. The formulae are from a reimplementation
of v6 and its abstract; the authors' code was not read. Beware: where few responses are left at a position, d_t counts
them more than it says of words, as Eq. 4 does. Where a position has one response of a side, it weighs 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from verl_twgrpo.algorithm.weightings.base import WEIGHTINGS, Group, Weighting
from verl_twgrpo.algorithm.weightings.settings import check_number

# Entropy of a token of which a model is quite sure; below it 1 / H would be ruled by rounding.
LEAST_ENTROPY = 1e-3


@dataclass(frozen=True)
class GTPOSettings:
    """share: a, the part of the credit that is shared by entropy, 0 to 1."""

    share: float = 0.1

    def __post_init__(self) -> None:
        check_number("share", self.share, 0, 1)


@WEIGHTINGS.register
class GTPO(Weighting):
    """Entropy shares of the right responses, inverse-entropy shares of the wrong ones."""

    name = "gtpo"
    Settings = GTPOSettings
    off = {"share": 0.0}
    columns = ("entropy", "advantages")

    @property
    def active(self) -> bool:
        return self.settings.share > 0

    def weigh(self, group: Group) -> list[torch.Tensor]:
        entropy_GT, advantages_GT, own_GT = (
            pad_sequence(values, batch_first=True)
            for values in (group.columns["entropy"], group.columns["advantages"], group.masks)
        )
        entropy_GT = entropy_GT.clamp(min=LEAST_ENTROPY)
        weights_GT = torch.ones_like(entropy_GT)
        for side_GT, credit_GT in ((advantages_GT > 0, entropy_GT), (advantages_GT < 0, 1 / entropy_GT)):
            side_GT = side_GT & own_GT
            credit_GT = torch.where(side_GT, credit_GT, 0.0)
            count_T, total_T = side_GT.sum(0), credit_GT.sum(0)
            shared_GT = count_T * credit_GT / torch.where(total_T > 0, total_T, 1.0)
            share = self.settings.share
            weights_GT = torch.where(side_GT, 1 - share + share * shared_GT, weights_GT)
        return [weights_GT[response, :length] for response, length in enumerate(group.lengths)]
