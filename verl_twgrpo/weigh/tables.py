"""Several weightings of the same tokens, in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from verl_twgrpo.algorithm.token_classes import CLASSES, token_classes
from verl_twgrpo.rewards.answers import LETTERS

from .stored import Stored

Weights = Mapping[str, Sequence[Sequence[np.ndarray]]]
"""Weighting -> group -> response -> float [L]."""


def correlations(weights: Weights, stored: Sequence[Stored]) -> list[dict[str, Any]]:
    """Spearman's correlation of each two weightings over all tokens of the model's own, and within responses (mean).

    NaN where one of the two has the same weight everywhere.
    """
    masks = [[mask.numpy() for mask in one.group.masks] for one in stored]
    own = {
        name: [
            weights_L[mask]
            for responses, of_group in zip(groups, masks, strict=True)
            for weights_L, mask in zip(responses, of_group, strict=True)
        ]
        for name, groups in weights.items()
    }
    lines = []
    for one, other in combinations(weights, 2):
        within = [spearman(a, b) for a, b in zip(own[one], own[other], strict=True)]
        known = [value for value in within if not math.isnan(value)]
        pooled = spearman(np.concatenate(own[one]), np.concatenate(own[other]))
        lines.append(
            {
                "weighting": one,
                "other": other,
                "tokens": sum(map(len, own[one])),
                "spearman": pooled,
                "within_response": float(np.mean(known)) if known else math.nan,
                "responses": len(known),
            }
        )
    return lines


def spearman(a_N: np.ndarray, b_N: np.ndarray) -> float:
    """NaN where there is nothing to rank."""
    from scipy.stats import spearmanr

    if len(a_N) < 2 or np.ptp(a_N) == 0 or np.ptp(b_N) == 0:
        return math.nan
    return float(spearmanr(a_N, b_N).statistic)


VIEW_COLUMN, OWN_COLUMN = "log_probs_", "old_log_probs"
"""Log-probs under a view of the video, by its name, and under the video as it is."""

ALL = "all"


def signal_means(stored: Sequence[Stored]) -> list[dict[str, Any]]:
    """Mean of what weightings read, by class of token and over all of the model's own: does it look at the video?

    divergence, entropy, and for each view of the video |d|, by how much the token's log-prob differs with it. Tokens
    at which one is not a number are left out of its means.
    """
    classes = _classes(stored)
    lines = []
    for name, signal in _signals(stored).items():
        known = np.isfinite(signal)
        for kind in (*CLASSES, ALL):
            there = known & ((classes == kind) | (kind == ALL))
            if there.any():
                lines.append(
                    {"signal": name, "class": kind, "tokens": int(there.sum()), "mean": float(signal[there].mean())}
                )
    return lines


def _signals(stored: Sequence[Stored]) -> dict[str, np.ndarray]:
    """Signal -> float [N] over the tokens of the model's own; those that every group has."""
    names = set.intersection(*(set(one.group.columns) for one in stored))

    def flat(column: str) -> np.ndarray:
        return np.concatenate(
            [
                values_L[mask].double().numpy()
                for one in stored
                for values_L, mask in zip(one.group.columns[column], one.group.masks, strict=True)
            ]
        )

    signals = {name: flat(name) for name in ("divergence", "entropy") if name in names}
    for name in sorted(names):
        if name.startswith(VIEW_COLUMN) and OWN_COLUMN in names:
            signals[f"|d| {name.removeprefix(VIEW_COLUMN)}"] = np.abs(flat(OWN_COLUMN) - flat(name))
    return signals


def _classes(stored: Sequence[Stored]) -> np.ndarray:
    """The class of each token of the model's own, [N]."""
    return np.concatenate(
        [
            np.array(token_classes(row["tokens"], LETTERS), dtype=object)[mask.numpy()]
            for one in stored
            for row, mask in zip(one.rows, one.group.masks, strict=True)
        ]
    )


def class_shares(weights: Weights, stored: Sequence[Stored]) -> list[dict[str, Any]]:
    """Mean weight of each class of tokens, its share of all weight and of all tokens of the model's own."""
    classes = _classes(stored)
    lines = []
    for name, groups in weights.items():
        flat = np.concatenate(
            [
                weights_L[mask.numpy()]
                for one, responses in zip(stored, groups, strict=True)
                for weights_L, mask in zip(responses, one.group.masks, strict=True)
            ]
        )
        for kind in CLASSES:
            there = classes == kind
            if there.any():
                total = flat.sum()
                lines.append(
                    {
                        "weighting": name,
                        "class": kind,
                        "tokens": int(there.sum()),
                        "mean_weight": float(flat[there].mean()),
                        "share_of_weight": float(flat[there].sum() / total) if total else math.nan,
                        "share_of_tokens": float(there.mean()),
                    }
                )
    return lines
