"""Intervals over seeds and questions."""

from __future__ import annotations

import numpy as np
import pytest

from verl_twgrpo.evaluation import bootstrap_mean
from verl_twgrpo.evaluation.intervals import two_way_interval


def test_agrees_with_a_plain_loop_that_draws_seeds_and_questions():
    rng = np.random.default_rng(5)
    scores_SN = (rng.random((3, 40)) < np.array([[0.3], [0.5], [0.6]])).astype(float)
    means = []
    for _ in range(4000):
        seeds, items = rng.integers(3, size=3), rng.integers(40, size=40)
        means.append(scores_SN[np.ix_(seeds, items)].mean())
    assert two_way_interval(scores_SN) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)


def test_with_one_seed_it_is_the_bootstrap_of_the_questions():
    scores_N = np.random.default_rng(1).choice([0.0, 0.5, 1.0], size=200)
    assert two_way_interval(scores_N[None]) == pytest.approx(bootstrap_mean(scores_N, seed=0), abs=0.01)


def test_seeds_share_their_questions():
    # three copies of one seed say nothing that one does not: questions drawn for each seed alone would
    scores_N = np.random.default_rng(2).integers(2, size=100).astype(float)
    assert two_way_interval(np.tile(scores_N, (3, 1))) == pytest.approx(two_way_interval(scores_N[None]), abs=0.01)


def test_seeds_that_disagree_widen_the_interval_to_their_range():
    # all three draws are one seed's with probability 1/27, more than a tail of the interval
    scores_SN = np.array([[0.2], [0.5], [0.7]]) * np.ones((1, 50))
    assert two_way_interval(scores_SN) == pytest.approx((0.2, 0.7))


def test_is_the_same_for_the_same_scores():
    scores_SN = np.random.default_rng(3).random((2, 30))
    assert two_way_interval(scores_SN) == two_way_interval(scores_SN.copy())
