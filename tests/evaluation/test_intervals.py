"""Intervals and tests against published values, brute force and simulation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_twgrpo.evaluation import bootstrap_mean, mcnemar_exact, paired_difference, wilson

outcomes = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


# Newcombe, Statistics in Medicine 17 (1998) 857-872, Table I, method 3
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_is_the_published_one(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_the_half_widths_that_the_design_quotes_come_out():
    sizes = {"mmvu": (411, 625, 3.7), "mvbench": (2534, 4000, 1.5), "nextgqa": (4228, 5553, 1.1)}
    for benchmark, (successes, n, half_width) in sizes.items():
        low, high = wilson(successes, n)
        assert round(50 * (high - low), 1) == half_width, benchmark


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@pytest.mark.slow
def test_wilson_interval_holds_the_share_and_is_never_a_point(counts):
    successes, n = counts
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n + 1e-12 and successes / n - 1e-12 <= high <= 1
    assert high - low > 0
    mirrored = wilson(n - successes, n)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high))


def test_no_rows_say_nothing():
    assert wilson(0, 0) == (0.0, 1.0)
    assert all(map(math.isnan, bootstrap_mean([], seed=0)))


def test_bootstrap_interval_is_about_the_normal_one_for_many_values():
    values = np.random.default_rng(0).choice([0, 1 / 3, 0.5, 1], size=4000)
    low, high = bootstrap_mean(values, seed=1)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_bootstrap_depends_on_the_seed_and_on_nothing_else():
    values = [0, 0.5, 1, 1, 0.25] * 7
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values[::-1], seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)
    assert bootstrap_mean([0.5] * 9, seed=0) == (0.5, 0.5)


@given(st.integers(0, 30), st.integers(0, 30))
@pytest.mark.slow
def test_mcnemar_is_the_exact_two_sided_binomial_test(only_first, only_second):
    n = only_first + only_second
    chance = [Fraction(math.comb(n, k), 2**n) for k in range(n + 1)]
    as_rare = sum(p for p in chance if p <= chance[only_first])
    assert mcnemar_exact(only_first, only_second) == pytest.approx(float(as_rare))


@given(outcomes)
@pytest.mark.slow
def test_swapping_the_models_swaps_the_signs(pairs):
    first, second = zip(*pairs, strict=True)
    forward, backward = paired_difference(first, second), paired_difference(second, first)
    assert forward.low <= forward.difference <= forward.high
    assert (-backward.high, -backward.difference, -backward.low) == pytest.approx(
        (forward.low, forward.difference, forward.high)
    )
    assert (backward.only_second, backward.p_value) == (forward.only_first, pytest.approx(forward.p_value))
    assert forward.low >= -1 and forward.high <= 1


def test_paired_difference_by_hand():
    # 12 both, 8 first only, 2 second only, 3 neither of 25: 20/25 - 14/25
    pairs = [(1, 1)] * 12 + [(1, 0)] * 8 + [(0, 1)] * 2 + [(0, 0)] * 3
    result = paired_difference(*zip(*pairs, strict=True))
    (low1, high1), (low2, high2) = wilson(20, 25), wilson(14, 25)
    phi = (12 * 3 - 8 * 2 - 12.5) / math.sqrt(20 * 5 * 14 * 11)
    below = math.sqrt((0.8 - low1) ** 2 - 2 * phi * (0.8 - low1) * (high2 - 0.56) + (high2 - 0.56) ** 2)
    above = math.sqrt((high1 - 0.8) ** 2 - 2 * phi * (high1 - 0.8) * (0.56 - low2) + (0.56 - low2) ** 2)
    assert (result.difference, result.only_first, result.only_second) == (pytest.approx(0.24), 8, 2)
    assert (result.low, result.high) == pytest.approx((0.24 - below, 0.24 + above))
    assert result.p_value == pytest.approx(2 * (1 + 10 + 45) / 1024)


def test_equal_models_differ_by_zero_give_or_take():
    result = paired_difference([True, False, True], [True, False, True])
    assert (result.difference, result.p_value) == (0, 1)
    assert result.low < 0 < result.high


@pytest.mark.slow
@pytest.mark.parametrize("cells", [(0.5, 0.1, 0.1, 0.3), (0.6, 0.2, 0.05, 0.15), (0.05, 0.02, 0.01, 0.92)])
def test_the_paired_interval_covers_the_true_difference_95_times_in_100(cells):
    draws = np.random.default_rng(0).multinomial(80, cells, size=1500)
    truth = cells[1] - cells[2]
    hits = 0
    for counts in draws:
        first = np.repeat([1, 1, 0, 0], counts)
        second = np.repeat([1, 0, 1, 0], counts)
        result = paired_difference(first, second)
        hits += result.low <= truth <= result.high
    assert 0.93 <= hits / len(draws) <= 0.995
