"""95% intervals and tests for accuracies. All proportions are fractions of one, all intervals two-sided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

RESAMPLES = 10_000


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927): never outside [0, 1], and not a point where all rows agree."""
    if n == 0:
        return 0.0, 1.0
    low, high = _binomial(successes, n).proportion_ci(method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))  # rounding may leave [0, 1]


def bootstrap_mean(values: Sequence[float], seed: int) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean, the same for the same seed. No values: NaN.

    Scores take few different values, so a resample is one draw of how often each comes (a multinomial).
    """
    if len(values) == 0:
        return math.nan, math.nan
    distinct, counts = np.unique(np.asarray(values, dtype=float), return_counts=True)
    n = counts.sum()
    means = np.random.default_rng(seed).multinomial(n, counts / n, size=RESAMPLES) @ distinct / n
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def two_way_interval(scores_SN: np.ndarray) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of S seeds x N questions; the same for the same scores.

    A resample draws S seeds and N questions with replacement, each on its own, so that the seeds keep their questions
    in common. With S = 1 only questions are drawn. With few seeds such intervals are too narrow: three seeds show
    two thirds of the variance between seeds.
    """
    return _middle(_resampled_means(scores_SN))


@dataclass(frozen=True)
class TwoWayTest:
    """A mean paired difference over seeds and questions, its interval, and two tests by the same resamples.

    p_value: two-sided, of no difference. p_equivalent: of a difference of the margin or more, to either side (two
    one-sided tests): below 0.05 the two are equivalent within the margin.
    """

    difference: float
    low: float
    high: float
    p_value: float
    p_equivalent: float


def two_way_test(differences_SN: np.ndarray, margin: float) -> TwoWayTest:
    """Test differences of S seeds x N questions, resampled as in ``two_way_interval``.

    Raises ``ValueError`` for a margin that is not positive.
    """
    if margin <= 0:
        raise ValueError(f"margin={margin}: need more than 0")
    means_R = _resampled_means(differences_SN)
    shares = [float(np.mean(found)) for found in (means_R <= 0, means_R >= 0, means_R >= margin, means_R <= -margin)]
    # a share of resamples is never known to be 0
    below, above, far_above, far_below = (max(share, 1 / (RESAMPLES + 1)) for share in shares)
    p_value = min(1.0, 2 * min(below, above))
    return TwoWayTest(float(differences_SN.mean()), *_middle(means_R), p_value, max(far_above, far_below))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of a family of tests, corrected for their number (Holm 1979): each is at least what it was."""
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for place, k in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[k]))
        adjusted[k] = largest
    return adjusted


def _resampled_means(scores_SN: np.ndarray) -> np.ndarray:
    """The mean of each of ``RESAMPLES`` draws of S seeds and N questions, float32."""
    seeds, items = scores_SN.shape
    drawn_RN = _draws(seeds, axis=0) @ scores_SN.astype(np.float32)
    return np.einsum("rn,rn->r", drawn_RN, _draws(items, axis=1)) / (seeds * items)


def _middle(means_R: np.ndarray) -> tuple[float, float]:
    """Of resampled means, what leaves 2.5% out at each end."""
    return float(np.quantile(means_R, 0.025)), float(np.quantile(means_R, 0.975))


@lru_cache(maxsize=16)
def _draws(size: int, axis: int) -> np.ndarray:
    """How often each of ``size`` comes in each resample [RESAMPLES, size], float32: a multinomial."""
    counts = np.random.default_rng([size, axis]).multinomial(size, np.full(size, 1 / size), size=RESAMPLES)
    return counts.astype(np.float32)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's test: are the discordant pairs a fair coin's? 1 if there are none."""
    n = only_first + only_second
    return float(_binomial(only_first, n).pvalue) if n else 1.0


def sign_flip(differences: Sequence[float], seed: int) -> float:
    """Two-sided p-value of the sign-flip test: could paired differences as likely have had the other sign?

    Exact for up to 13 differences that are not 0; for more, ``RESAMPLES`` draws, and then never below 1/(that + 1).
    No difference at all: 1.
    """
    live_N = np.abs(np.asarray([d for d in differences if d != 0], dtype=float))
    if len(live_N) == 0:
        return 1.0
    observed = abs(sum(differences)) * (1 - 1e-12)  # sums in another order differ by rounding
    if 2 ** len(live_N) < RESAMPLES:
        bits = np.arange(2 ** len(live_N))[:, None] >> np.arange(len(live_N)) & 1
        return float(np.mean(np.abs((2 * bits - 1) @ live_N) >= observed))
    rng, extreme = np.random.default_rng(seed), 0
    for _ in range(RESAMPLES // 500):  # in parts: all signs at once may not fit
        signs = 2.0 * rng.integers(0, 2, (500, len(live_N)), dtype=np.int8) - 1
        extreme += int(np.sum(np.abs(signs @ live_N) >= observed))
    return (extreme + 1) / (RESAMPLES + 1)


def _binomial(successes: int, n: int) -> Any:
    from scipy.stats import binomtest  # takes a second to import

    return binomtest(successes, n)


@dataclass(frozen=True)
class PairedTest:
    """Two models on the same questions: accuracy of the first minus that of the second, its interval, McNemar's p."""

    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p_value: float


def paired_difference(first: Sequence[float], second: Sequence[float]) -> PairedTest:
    """Difference of two paired proportions with Newcombe's interval (1998, method 10) and McNemar's exact test.

    Both hold, by question, whether the model was right (1 or 0). The interval joins the Wilson intervals of both
    proportions and takes their correlation into account.
    """
    both, only_first, only_second, neither = (
        sum((bool(a), bool(b)) == pair for a, b in zip(first, second, strict=True))
        for pair in ((True, True), (True, False), (False, True), (False, False))
    )
    n = both + only_first + only_second + neither
    if n == 0:
        return PairedTest(math.nan, -1.0, 1.0, 0, 0, 1.0)
    p1, p2 = (both + only_first) / n, (both + only_second) / n
    (low1, high1), (low2, high2) = wilson(both + only_first, n), wilson(both + only_second, n)
    product = math.prod((both + only_first, only_second + neither, both + only_second, only_first + neither))
    association: float = both * neither - only_first * only_second
    # Method 10: a positive association is pulled towards zero, for continuity.
    association = max(association - n / 2, 0) if association > 0 else association
    phi = association / math.sqrt(product) if product else 0.0
    below = _join(p1 - low1, high2 - p2, phi)
    above = _join(high1 - p1, p2 - low2, phi)
    difference = p1 - p2
    p_value = mcnemar_exact(only_first, only_second)
    return PairedTest(difference, difference - below, difference + above, only_first, only_second, p_value)


def _join(first: float, second: float, phi: float) -> float:
    return math.sqrt(max(0.0, first**2 - 2 * phi * first * second + second**2))
