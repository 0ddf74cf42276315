"""Tables by group, by position and by the number of rows that have not ended."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from verl_twgrpo.evaluation.intervals import bootstrap_mean

from .measuring import KINDS, Weighted, mean_entropy
from .sampling import GROUP_SIZE, MAX_NEW_TOKENS
from .statistics import centred, mean_or_nan, middle, pearson, quantile_line, regions, spearman, tail_share

PAIRS = (("jsd", "released"), ("jsd", "live"), ("released", "live"))


def correlation_table(groups: Sequence[Weighted]) -> list[dict]:
    """How w_t of two readings correlate within a group, by region."""
    table = []
    for first, second in PAIRS:
        for region in regions(np.ones(1)):
            masks = [regions(group.live_T)[region] for group in groups]
            pairs = [(g.weight[first][mask], g.weight[second][mask]) for g, mask in zip(groups, masks, strict=True)]
            for name, measure in (("spearman", spearman), ("pearson", pearson)):
                values = middle([measure(a, b) for a, b in pairs])
                table.append(
                    quantile_line({"first": first, "second": second, "region": region, "measure": name}, values)
                )
    return table


def group_table(groups: Sequence[Weighted]) -> list[dict]:
    """One line per group and reading: lengths, weights with and without ended rows, shares of the tail."""
    table = []
    for group in groups:
        live_T, entropy_T = group.live_T, mean_entropy(group)
        masks = regions(live_T)
        content, tail = masks["no row ended"], masks["ragged tail"]
        for kind in KINDS:
            weight, divergence = group.weight[kind], group.divergence[kind]
            table.append(
                {
                    "id": group.sample.id,
                    "reading": kind,
                    "shortest": min(group.sample.lengths),
                    "longest": max(group.sample.lengths),
                    "tokens": sum(group.sample.lengths),
                    "at_limit": sum(length == MAX_NEW_TOKENS for length in group.sample.lengths),
                    "fewest_live": int(live_T[-1]),
                    "divergence_max": divergence.max(),
                    "divergence_max_at": int(divergence.argmax()),
                    "divergence_over_bound": mean_or_nan((divergence / bound(live_T))[content])
                    if kind == "jsd"
                    else math.nan,
                    "divergence_over_bound_max": (divergence / bound(live_T)).max() if kind == "jsd" else math.nan,
                    "weight_mean_no_row_ended": mean_or_nan(weight[content]),
                    "weight_std_no_row_ended": weight[content].std() if content.any() else math.nan,
                    "weight_mean_tail": mean_or_nan(weight[tail]),
                    "weight_mean_last": mean_or_nan(weight[live_T == live_T[-1]]),
                    "tail_weight_share": tail_share(weight, live_T),
                    "tail_token_share": tail_share(np.ones(len(live_T)), live_T),
                    "spearman_weight_live": spearman(weight[tail], live_T[tail]),
                    "spearman_weight_entropy_same_live": spearman(
                        *(centred(values[1:], live_T[1:]) for values in (weight, entropy_T))
                    ),
                    "heaviest_is_last": float(live_T[weight.argmax()] == live_T[-1]),
                    "lightest_is_last": float(live_T[1:][weight[1:].argmin()] == live_T[-1]),
                }
            )
    return table


def bound(live_T: np.ndarray) -> np.ndarray:
    """Upper bound of D_t of Eq. 4 with k live of G rows: k ln G + (G - k) ln(G / (G - k))."""
    ended_T = GROUP_SIZE - live_T
    return live_T * math.log(GROUP_SIZE) + ended_T * np.log(GROUP_SIZE / np.maximum(ended_T, 1))


def summary_table(by_group: Sequence[dict]) -> list[dict]:
    """Medians over groups of the numbers of ``group_table``, and means, which say how often a 0 or 1 is 1."""
    table = []
    for kind in KINDS:
        part = [line for line in by_group if line["reading"] == kind]
        for name in [name for name in part[0] if name not in ("id", "reading")]:
            values = [float(line[name]) for line in part]
            if not all(math.isnan(value) for value in values):
                line = quantile_line(
                    {"reading": kind, "measure": name, "mean": float(np.nanmean(values))}, middle(values)
                )
                table.append(line)
    return table


def profile_table(groups: Sequence[Weighted]) -> list[dict]:
    """Means over the groups that reach a position."""
    table = []
    for t in range(max(len(group.live_T) for group in groups)):
        there = [group for group in groups if t < len(group.live_T)]
        line = {"position": t, "groups": len(there), "live_rows": mean_or_nan([g.live_T[t] for g in there])}
        for kind in KINDS:
            line[f"divergence_{kind}"] = mean_or_nan([group.divergence[kind][t] for group in there])
            line[f"weight_{kind}"] = mean_or_nan([group.weight[kind][t] for group in there])
        table.append(line)
    return table


def live_table(groups: Sequence[Weighted]) -> list[dict]:
    """D_t and w_t by the number of live rows: mean over groups of a group's mean, position 0 left out."""
    table = []
    for k in range(GROUP_SIZE, 0, -1):
        for kind in KINDS:
            masks = [(group.live_T == k) & (np.arange(len(group.live_T)) > 0) for group in groups]
            there = [(group, mask) for group, mask in zip(groups, masks, strict=True) if mask.any()]
            weights = [group.weight[kind][mask].mean() for group, mask in there]
            low, high = bootstrap_mean(weights, seed=0)
            table.append(
                {
                    "live_rows": k,
                    "reading": kind,
                    "groups": len(there),
                    "positions": sum(int(mask.sum()) for _, mask in there),
                    "divergence": mean_or_nan([group.divergence[kind][mask].mean() for group, mask in there]),
                    "weight": mean_or_nan(weights),
                    "low": low,
                    "high": high,
                }
            )
    return table
