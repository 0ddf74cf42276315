"""The first step of a run compares rollout and actor."""

from __future__ import annotations

import logging

import pytest

from verl_twgrpo.training.input_checks import DIFFERENCE, InputChecks, check_rollout_probs
from verl_twgrpo.training.settings import TWGRPOConfig

HINT = "`verl-twgrpo parity MODEL --data PARQUET` shows where"


@pytest.mark.parametrize("difference", [0.021, 0.5, float("nan")])
def test_a_rollout_of_another_policy_stops_the_run(difference):
    with pytest.raises(ValueError, match=HINT):
        check_rollout_probs({DIFFERENCE: difference, "training/rollout_probs_diff_valid": 1}, 0.02)


def test_a_small_difference_passes_and_null_is_off():
    assert check_rollout_probs({DIFFERENCE: 0.019}, 0.02)
    assert check_rollout_probs({DIFFERENCE: 0.9}, None)


def test_a_step_without_tokens_settles_nothing():
    assert not check_rollout_probs({DIFFERENCE: float("nan"), "training/rollout_probs_diff_valid": 0}, 0.02)


def test_a_run_that_cannot_be_checked_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        assert check_rollout_probs({}, 0.02)
    assert "set actor_rollout_ref.rollout.calculate_log_probs=True" in caplog.text


class Steps:
    """verl's trainer as far as this goes: each step brings its metrics."""

    def __init__(self, *steps):
        self.steps, self.tw_grpo = list(steps), TWGRPOConfig()

    def _compute_old_log_prob(self, batch, metrics):
        metrics.update(self.steps.pop(0))
        return batch


class Trainer(InputChecks, Steps):
    pass


def test_only_the_first_step_with_tokens_is_checked():
    none = {DIFFERENCE: float("nan"), "training/rollout_probs_diff_valid": 0}
    trainer = Trainer(none, {DIFFERENCE: 0.001}, {DIFFERENCE: 0.3})
    for _ in range(3):
        trainer._compute_old_log_prob(None, {})
    trainer = Trainer(none, {DIFFERENCE: 0.3})
    trainer._compute_old_log_prob(None, {})
    with pytest.raises(ValueError, match=HINT):
        trainer._compute_old_log_prob(None, {})


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "x"])
def test_limits_that_cannot_be_are_refused(limit):
    with pytest.raises(ValueError, match="algorithm.tw_grpo.max_rollout_probs_diff"):
        TWGRPOConfig(max_rollout_probs_diff=limit)
