"""Statistics of the values at a group's positions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr


def live_rows(lengths: Sequence[int]) -> np.ndarray:
    """How many rows have not ended, by position; [max(lengths)]."""
    return (np.arange(max(lengths)) < np.asarray(lengths)[:, None]).sum(0)


def regions(live_T: np.ndarray) -> dict[str, np.ndarray]:
    """Masks of positions. Position 0 is in none but ``all``: one context, D = 0 in every reading."""
    later = np.arange(len(live_T)) > 0
    whole = live_T == live_T[0]
    return {
        "all": np.ones_like(later),
        "after the first": later,
        "no row ended": later & whole,
        "ragged tail": later & ~whole,
        "tail, 2 or more live": later & ~whole & (live_T > 1),
    }


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation; NaN for fewer than 3 values or where one side does not vary."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; NaN as ``pearson``."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(spearmanr(a, b).statistic)


def tail_share(weights_T: np.ndarray, live_T: np.ndarray) -> float:
    """Share of the weight of all tokens that lies where some row has ended; live_T as weights: share of the tokens."""
    on_tokens = weights_T * live_T
    return float(on_tokens[live_T < live_T[0]].sum() / on_tokens.sum())


def centred(values_T: np.ndarray, live_T: np.ndarray) -> np.ndarray:
    """Values less their mean over the positions with as many live rows: what is left when the tail's effect is out."""
    out = values_T.astype(float)
    for k in np.unique(live_T):
        out[live_T == k] -= out[live_T == k].mean()
    return out


def middle(values: Sequence[float]) -> tuple[float, float, float, int]:
    """Median, 10% and 90% quantile and number of the values that are not NaN."""
    kept = np.array([value for value in values if not math.isnan(value)])
    if not len(kept):
        return math.nan, math.nan, math.nan, 0
    low, median, high = np.quantile(kept, [0.1, 0.5, 0.9])
    return float(median), float(low), float(high), len(kept)


def quantile_line(keys: dict, values: tuple[float, float, float, int]) -> dict:
    """A line of a table: ``keys``, then what ``middle`` returned."""
    return {**keys, **dict(zip(("median", "p10", "p90", "groups"), values, strict=True))}


def mean_or_nan(values: Sequence[float]) -> float:
    """Mean; NaN of no values."""
    return float(np.mean(values)) if len(values) else math.nan
