"""T-GRPO's bonus for answers that need the order of the frames (Video-R1, arXiv 2503.21776, Eq. 1 to 3).

A prompt is answered G times on its video and a few more times on the same frames in another order; p and p~ are the
mean accuracies of the two. Where p >= mu p~, every right response on the ordered frames is paid ``bonus`` more.

The authors' code (tulerfeng/Video-R1, src/r1-v/src/open_r1/trainer/grpo_trainer.py) has mu = 0.8; they name 1.0 as well
(its issues 43 and 74). It takes p and p~ over the batch of a device, which is one prompt in their runs only; here they
are the prompt's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from verl_twgrpo.algorithm.weightings.settings import check_number


@dataclass(frozen=True)
class TemporalBonus:
    """The settings, with the numbers of the authors' code.

    bonus: paid to right responses. mu: share of p~ that p has to reach. shuffled: responses on shuffled frames, as a
    share of the group's. score: which of the reward's scores is the accuracy. right: above it a response is right.
    length_bonus: paid to right responses of ``length_window`` tokens (both ends included) where more than one of the
    group is right; Video-R1 pays 0.2.
    """

    bonus: float = 0.3
    mu: float = 0.8
    shuffled: float = 0.5
    score: str = "soft_accuracy"
    right: float = 0.1
    length_bonus: float = 0.0
    length_window: Sequence[int] = (320, 512)

    def __post_init__(self) -> None:
        for name in ("bonus", "mu", "right", "length_bonus"):
            check_number(name, getattr(self, name))
        check_number("shuffled", self.shuffled, 0, 1)
        if not isinstance(self.score, str) or not self.score:
            raise ValueError(f"score={self.score!r}: need the name of one of the reward's scores")
        window = self.length_window
        if not (isinstance(window, Sequence) and len(window) == 2 and all(isinstance(edge, int) for edge in window)):
            raise ValueError(f"length_window={window!r}: need [shortest, longest] in tokens")
        object.__setattr__(self, "length_window", tuple(window))  # a list from YAML

    def responses(self, group_size: int) -> int:
        """How many responses on shuffled frames a group of ``group_size`` has."""
        return int(group_size * self.shuffled)

    def of_group(self, ordered_G: torch.Tensor, shuffled_S: torch.Tensor, lengths_G: torch.Tensor) -> torch.Tensor:
        """What is added to the rewards of a group, float [G].

        Args:
            ordered_G: accuracy of the responses on the video; shuffled_S: of those on shuffled frames. Without any of
                these (no video, or all of them failed) there is no bonus.
            lengths_G: tokens of the responses.
        """
        right_G = ordered_G > self.right
        paid_G = torch.zeros(len(ordered_G))
        if len(shuffled_S) and ordered_G.mean() >= self.mu * shuffled_S.mean():
            paid_G = paid_G + self.bonus * right_G
        if right_G.sum() > 1:
            low, high = self.length_window
            paid_G = paid_G + self.length_bonus * (right_G & (low <= lengths_G) & (lengths_G <= high))
        return paid_G
