"""Group-normalised advantage of GRPO."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from verl_twgrpo.rows import rows_by_group


def group_normalised_advantage(
    rewards_B: torch.Tensor, group_ids: Sequence[Hashable], eps: float = 1e-4
) -> torch.Tensor:
    """(R - mean) / (std + eps) within each group, std with Bessel's correction.

    The paper prints eps = 0, the released code adds 1e-4. A group of one row, or whose rewards are all equal, tells
    nothing: advantage 0, whatever eps is.

    Args:
        rewards_B: one reward per response.
        group_ids: which group each response belongs to, in any order.

    Returns:
        advantages_B, dtype of the rewards (float32 for integers).

    Raises:
        ValueError: rewards_B is not one value per id.
    """
    if rewards_B.dim() != 1 or len(rewards_B) != len(group_ids):
        raise ValueError(
            f"advantage: rewards_B has shape {tuple(rewards_B.shape)}, expected [{len(group_ids)}], one reward per id"
        )
    if not rewards_B.is_floating_point():
        rewards_B = rewards_B.float()
    advantages_B = torch.zeros_like(rewards_B)
    for rows in rows_by_group(group_ids).values():
        rewards = rewards_B[rows]
        if rewards.min() < rewards.max():
            advantages_B[rows] = (rewards - rewards.mean()) / (rewards.std() + eps)
    return advantages_B
