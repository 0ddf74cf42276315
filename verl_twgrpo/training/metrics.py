"""What a step of token weighting did, in numbers for verl's logger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from verl_twgrpo.algorithm.weightings import Group
from verl_twgrpo.rows import rows_by_group


def weight_metrics(groups: Sequence[Group], nan_tokens: int = 0) -> dict[str, float]:
    """Metrics ``tw_grpo/*`` over the tokens (not the positions) of a step's groups.

    tail_weight_share: share of all weight that lies where some response of the group has ended. live_fraction: tokens
    over G x T. degenerate_groups: share of groups that say nothing, so that all their weights are 1; those in which
    something is not a number are not counted there. nan_tokens: tokens at which a column that the weighting reads is
    not a number. <column>_mean: of every column that it reads; divergence_mean is one. contrast_<view>: mean of
    |log p(y | video) - log p(y | altered video)| where there was a pass over that view: how much the model looks at it.
    """
    weight_sum = tail_sum = weight_max = 0.0
    column_sums: dict[str, float] = {}
    contrasts: dict[str, float] = {}
    tokens = cells = degenerate = 0
    for group in groups:
        lengths = group.lengths
        shortest = min(lengths)
        weight_sum += torch.cat(group.weights).double().sum().item()
        tail_sum += torch.cat([weights_L[shortest:] for weights_L in group.weights]).double().sum().item()
        weight_max = max(weight_max, *(weights_L.max().item() for weights_L in group.weights))
        for name, column in group.columns.items():
            column_sums[name] = column_sums.get(name, 0.0) + torch.cat(column).double().sum().item()
            if name.startswith("log_probs_") and "old_log_probs" in group.columns:
                gap_N = torch.cat(group.columns["old_log_probs"]).double() - torch.cat(column).double()
                view = name.removeprefix("log_probs_")
                contrasts[view] = contrasts.get(view, 0.0) + gap_N.abs().sum().item()
        tokens += sum(lengths)
        cells += len(lengths) * max(lengths)
        is_number = all(values_L.isfinite().all() for column in group.columns.values() for values_L in column)
        degenerate += is_number and all(bool((weights_L == 1).all()) for weights_L in group.weights)
    if not tokens:
        return {}
    return {
        **{f"tw_grpo/{name}_mean": total / tokens for name, total in column_sums.items()},
        **{f"tw_grpo/contrast_{view}": total / tokens for view, total in contrasts.items()},
        "tw_grpo/weight_mean": weight_sum / tokens,
        "tw_grpo/weight_max": weight_max,
        "tw_grpo/tail_weight_share": tail_sum / weight_sum if weight_sum else 0.0,
        "tw_grpo/live_fraction": tokens / cells,
        "tw_grpo/degenerate_groups": degenerate / len(groups),
        "tw_grpo/nan_tokens": nan_tokens,
    }


# classes of tokens that a weighting should tell from the rest
LOGGED_CLASSES = ("option letter", "verdict word", "function word")


def class_metrics(groups: Sequence[Group], classes_of_row: Mapping[int, Sequence[str]]) -> dict[str, float]:
    """Mean weight of option letters, verdict words and function words, and their share of all weight.

    ``tw_grpo/weight_mean_<class>`` and ``tw_grpo/weight_share_<class>``, over the model's own tokens; nothing of a
    class that no token of the step is in, as with tokenizers that write such words in several pieces.

    Args:
        classes_of_row: by row of the batch, ``token_classes`` of its response.
    """
    total, sums, counts = 0.0, dict.fromkeys(LOGGED_CLASSES, 0.0), dict.fromkeys(LOGGED_CLASSES, 0)
    for group in groups:
        for row, weights_L, mask in zip(group.rows, group.weights, group.masks, strict=True):
            for weight, own, kind in zip(weights_L.tolist(), mask.tolist(), classes_of_row[row], strict=True):
                if own:
                    total += weight
                    if kind in sums:
                        sums[kind] += weight
                        counts[kind] += 1
    named = {}
    for kind in LOGGED_CLASSES:
        if counts[kind]:
            name = kind.replace(" ", "_")
            named[f"tw_grpo/weight_mean_{name}"] = sums[kind] / counts[kind]
            named[f"tw_grpo/weight_share_{name}"] = sums[kind] / total if total else 0.0
    return named


def packing_metrics(counts: Sequence[dict[str, int]]) -> dict[str, float]:
    """Tokens that a step's passes (old log-probs, extra passes, update) ran through the model, over all ranks.

    Metrics ``packed_groups/*``: tokens; tokens_unpacked, had every response run behind a prompt of its own; ratio, the
    second over the first. Empty where nothing was packed.

    Args:
        counts: by rank, what the engine's ``take_packing_counts`` gave.
    """
    tokens, unpacked = (sum(count[name] for count in counts) for name in ("tokens", "tokens_unpacked"))
    if not tokens:
        return {}
    return {
        "packed_groups/tokens": float(tokens),
        "packed_groups/tokens_unpacked": float(unpacked),
        "packed_groups/ratio": unpacked / tokens,
    }


def spread_metrics(rewards_B: torch.Tensor, group_of_row: Sequence[str | None]) -> dict[str, float]:
    """Spread of rewards within groups: mean standard deviation, and the share of groups that have none (no gradient).

    Args:
        rewards_B: one reward per response.
        group_of_row: its group; None for padding rows.
    """
    by_group = {group: rewards_B[rows].tolist() for group, rows in rows_by_group(group_of_row).items()}
    if not by_group:
        return {}
    flat = [min(rewards) == max(rewards) for rewards in by_group.values()]
    stds = [torch.tensor(rewards).std(correction=min(1, len(rewards) - 1)).item() for rewards in by_group.values()]
    return {
        "tw_grpo/group_reward_std": sum(stds) / len(stds),
        "tw_grpo/groups_without_spread": sum(flat) / len(flat),
    }


def reward_metrics(infos: Sequence[dict]) -> dict[str, float]:
    """Means of what the reward manager says of each response.

    ``tw_grpo/accuracy``, ``soft_accuracy`` and ``format`` over all of them, and every number that a task reports as
    ``reward/{data source}/{task}/{name}``. None does not apply and is left out; text is no number.
    """
    values: dict[str, list[float]] = {}
    for info in infos:
        source, task = info.get("benchmark"), info.get("task") or "multiple_choice"
        for name, value in info.items():
            if isinstance(value, bool | int | float):
                if source:  # verl's own reward managers report none
                    values.setdefault(f"reward/{source}/{task}/{name}", []).append(float(value))
                if name in ("accuracy", "soft_accuracy", "format"):
                    values.setdefault(f"tw_grpo/{name}", []).append(float(value))
    return {name: sum(found) / len(found) for name, found in values.items()}
