"""SOVA's virtual anchor: a gradient for groups in which every response is right, or every one wrong (SOVA-TW-GRPO).

A virtual reward joins the group's statistics: ``right`` where all responses are right and well formed, ``wrong`` where
none is right. With A' = (R - mean') / (std' + eps) over the rewards and the anchor, A becomes A + lambda (A' - A).
Groups of both kinds of response keep A.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from verl_twgrpo.algorithm.weightings.settings import check_number
from verl_twgrpo.rows import rows_by_group

EPS = 1e-4


@dataclass(frozen=True)
class Anchors:
    """The paper's numbers, for rewards of 0 to 2 (accuracy and format).

    right: virtual reward beside responses that are all right; below theirs. wrong: beside those that are all wrong;
    above theirs. right_strength, wrong_strength: lambda of each, 0 to 1.
    """

    right: float = 1.5
    wrong: float = 2.0
    right_strength: float = 0.0625
    wrong_strength: float = 0.03125

    def __post_init__(self) -> None:
        for name in ("right", "wrong"):
            check_number(name, getattr(self, name))
        for name in ("right_strength", "wrong_strength"):
            check_number(name, getattr(self, name), 0, 1)


def anchored_advantage(
    advantages_B: torch.Tensor,
    rewards_B: torch.Tensor,
    group_ids: Sequence[Hashable],
    scores: Sequence[Mapping[str, Any] | None],
    anchors: Anchors,
) -> torch.Tensor:
    """Advantages with those of one-sided groups moved towards the ones that an anchor gives them.

    Args:
        advantages_B, rewards_B: of each response.
        group_ids: which group each belongs to.
        scores: ``accuracy`` of each response, and ``format`` where there is one (1 is well formed); None for rows that
            are nobody's, which leave their group as it is.

    Raises:
        ValueError: a response without an accuracy; an anchor on the wrong side of the rewards, which would push away
            from right answers, or towards wrong ones.
    """
    anchored_B = advantages_B.clone()
    for rows in rows_by_group(group_ids).values():
        of_group = [scores[row] for row in rows]
        if any(score is None for score in of_group):
            continue
        accuracies = [score.get("accuracy") for score in of_group if score is not None]
        if any(accuracy is None for accuracy in accuracies):
            raise ValueError(
                "algorithm.tw_grpo.anchors: the reward reports no accuracy; use the reward managers multi_answer or "
                "video_tasks, or return `accuracy` beside the score"
            )
        formed = [score.get("format") in (None, 1) for score in of_group if score is not None]
        rewards = rewards_B[rows]
        if all(accuracy == 1 for accuracy in accuracies) and all(formed):
            name, strength, fits = "right", anchors.right_strength, anchors.right < rewards.min()
        elif all(accuracy == 0 for accuracy in accuracies):
            name, strength, fits = "wrong", anchors.wrong_strength, anchors.wrong > rewards.max()
        else:
            continue
        anchor = getattr(anchors, name)
        if not strength:
            continue
        if not fits:
            side = "below" if name == "right" else "above"
            raise ValueError(
                f"algorithm.tw_grpo.anchors.{name}={anchor:g}: the rewards of a group of {name} responses are "
                f"{rewards.min().item():g} to {rewards.max().item():g}; the anchor has to lie {side} them"
            )
        joined = torch.cat([rewards, rewards.new_tensor([anchor])])
        virtual = (rewards - joined.mean()) / (joined.std() + EPS)
        anchored_B[rows] += strength * (virtual - anchored_B[rows])
    return anchored_B
