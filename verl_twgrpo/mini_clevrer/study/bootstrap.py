"""95% intervals of means over training seeds and questions at once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from verl_twgrpo.evaluation.intervals import RESAMPLES


def two_way_interval(scores_SN: np.ndarray) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of S seeds x N questions; the same for the same scores.

    A resample draws S seeds and N questions with replacement, each on its own, so that the seeds keep their questions
    in common. With S = 1 only questions are drawn. With few seeds such intervals are too narrow: three seeds show
    two thirds of the variance between seeds.
    """
    seeds, items = scores_SN.shape
    drawn_RN = _draws(seeds, axis=0) @ scores_SN.astype(np.float32)
    means_R = np.einsum("rn,rn->r", drawn_RN, _draws(items, axis=1)) / (seeds * items)
    return float(np.quantile(means_R, 0.025)), float(np.quantile(means_R, 0.975))


@lru_cache(maxsize=16)
def _draws(size: int, axis: int) -> np.ndarray:
    """How often each of ``size`` comes in each resample [RESAMPLES, size], float32: a multinomial."""
    counts = np.random.default_rng([size, axis]).multinomial(size, np.full(size, 1 / size), size=RESAMPLES)
    return counts.astype(np.float32)
