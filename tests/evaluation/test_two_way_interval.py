"""Intervals over seeds and questions."""

from __future__ import annotations

import numpy as np
import pytest

from verl_twgrpo.evaluation import bootstrap_mean
from verl_twgrpo.evaluation.intervals import holm, two_way_interval, two_way_test

# ten thousand resamples each
pytestmark = pytest.mark.slow


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


def test_a_difference_that_is_there_and_one_that_is_not():
    rng = np.random.default_rng(0)
    noise_SN = rng.choice([-1.0, 0.0, 1.0], size=(8, 2000), p=[0.05, 0.9, 0.05])
    found = two_way_test(noise_SN, margin=0.03)
    assert (found.low, found.high) == two_way_interval(noise_SN)
    assert found.low < 0 < found.high and found.p_value > 0.05
    assert found.p_equivalent < 0.05
    moved = two_way_test(noise_SN + (rng.random((8, 2000)) < 0.05), margin=0.03)
    assert moved.p_value < 0.05 < moved.p_equivalent
    # one-sided tests at 5% are the interval of 90% inside the margin
    exact = two_way_test(np.zeros((2, 5)), margin=0.01)
    assert (exact.difference, exact.p_value) == (0, 1)
    assert exact.p_equivalent < 0.001
    with pytest.raises(ValueError, match="margin=0: need more than 0"):
        two_way_test(noise_SN, margin=0)


def test_the_sign_of_a_difference_turns_its_interval():
    scores_SN = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], size=(4, 300), p=[0.1, 0.7, 0.2])
    one, other = two_way_test(scores_SN, 0.05), two_way_test(-scores_SN, 0.05)
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low), abs=1e-6)
    assert (one.p_value, one.p_equivalent) == (other.p_value, other.p_equivalent)


def test_holms_correction_is_that_of_the_book():
    # Holm, Scandinavian Journal of Statistics 6 (1979): p of the smallest times m, of the next times m - 1, ...
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
