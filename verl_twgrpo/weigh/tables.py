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


def class_shares(weights: Weights, stored: Sequence[Stored]) -> list[dict[str, Any]]:
    """Mean weight of each class of tokens, its share of all weight and of all tokens of the model's own."""
    classes = np.concatenate(
        [
            np.array(token_classes(row["tokens"], LETTERS), dtype=object)[mask.numpy()]
            for one in stored
            for row, mask in zip(one.rows, one.group.masks, strict=True)
        ]
    )
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
