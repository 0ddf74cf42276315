"""What a step of token weighting did, in numbers for verl's logger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass
class WeightedGroup:
    """One group of a step. lengths_G: tokens of each row; divergence_T, weights_T: by position, T = max(lengths_G)."""

    uid: str
    rows: list[int]
    lengths_G: list[int]
    divergence_T: torch.Tensor
    weights_T: torch.Tensor


def weight_metrics(groups: Sequence[WeightedGroup]) -> dict[str, float]:
    """Metrics ``tw_grpo/*`` over the tokens (not the positions) of a step's groups.

    tail_weight_share: share of all weight that lies where some row of the group has ended. live_fraction: tokens over
    G x T. degenerate_groups: share of groups that say nothing, so that all their weights are 1.
    """
    weight_sum = tail_sum = divergence_sum = weight_max = 0.0
    tokens = cells = degenerate = 0
    for group in groups:
        shortest = min(group.lengths_G)
        live_T = torch.tensor([sum(length > t for length in group.lengths_G) for t in range(len(group.weights_T))])
        weighted_T = group.weights_T * live_T
        weight_sum += weighted_T.sum().item()
        tail_sum += weighted_T[shortest:].sum().item()
        divergence_sum += (group.divergence_T * live_T).sum().item()
        weight_max = max(weight_max, group.weights_T.max().item())
        tokens += sum(group.lengths_G)
        cells += len(group.lengths_G) * len(group.weights_T)
        degenerate += bool((group.weights_T == 1).all())
    if not tokens:
        return {}
    return {
        "tw_grpo/divergence_mean": divergence_sum / tokens,
        "tw_grpo/weight_mean": weight_sum / tokens,
        "tw_grpo/weight_max": weight_max,
        "tw_grpo/tail_weight_share": tail_sum / weight_sum if weight_sum else 0.0,
        "tw_grpo/live_fraction": tokens / cells,
        "tw_grpo/degenerate_groups": degenerate / len(groups),
    }


def spread_metrics(rewards_B: torch.Tensor, group_of_row: Sequence[str | None]) -> dict[str, float]:
    """Spread of rewards within groups: mean standard deviation, and the share of groups that have none (no gradient).

    Args:
        rewards_B: one reward a response.
        group_of_row: its group; None for padding rows.
    """
    by_group: dict[str, list[float]] = {}
    for reward, group in zip(rewards_B.tolist(), group_of_row, strict=True):
        if group is not None:
            by_group.setdefault(group, []).append(reward)
    if not by_group:
        return {}
    flat = [min(rewards) == max(rewards) for rewards in by_group.values()]
    stds = [torch.tensor(rewards).std(correction=min(1, len(rewards) - 1)).item() for rewards in by_group.values()]
    return {
        "tw_grpo/group_reward_std": sum(stds) / len(stds),
        "tw_grpo/groups_without_spread": sum(flat) / len(flat),
    }


def reward_metrics(infos: Sequence[dict]) -> dict[str, float]:
    """Means of what the reward manager says of each response: accuracy (exact), soft accuracy (Eq. 7), format."""
    means = {}
    for name in ("accuracy", "soft_accuracy", "format"):
        values = [float(info[name]) for info in infos if info.get(name) is not None]
        if values:
            means[f"tw_grpo/{name}"] = sum(values) / len(values)
    return means
