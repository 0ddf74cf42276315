"""Group-normalised advantage: Eq. 1 by group."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_twgrpo.algorithm import group_normalised_advantage

rewards = st.lists(st.integers(0, 8).map(lambda eighths: eighths / 8), min_size=2, max_size=12)
few = settings(max_examples=50)


@few
@given(rewards.filter(lambda values: len(set(values)) > 1), st.sampled_from([0.0, 1e-4, 1e-2]))
def test_one_group_is_eq_1(values, eps):
    advantages_B = group_normalised_advantage(torch.tensor(values), ["a"] * len(values), eps)
    torch.testing.assert_close(advantages_B, torch.tensor(reference.eq1_advantages(values, eps)), rtol=1e-5, atol=1e-6)


@few
@given(st.lists(rewards, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_groups_may_be_interleaved_and_of_any_size(groups, random):
    rows = [(group, value) for group, values in enumerate(groups) for value in values]
    random.shuffle(rows)
    ids = np.array([f"uid-{group}" for group, _ in rows], dtype=object)
    advantages_B = group_normalised_advantage(torch.tensor([value for _, value in rows]), ids)
    for group, values in enumerate(groups):
        alone = group_normalised_advantage(torch.tensor([value for g, value in rows if g == group]), [0] * len(values))
        torch.testing.assert_close(advantages_B[torch.tensor(ids == f"uid-{group}")], alone)


@pytest.mark.parametrize("eps", [0.0, 1e-4])
def test_no_spread_and_single_rows_give_exactly_0(eps):
    """0.1 three times does not have the mean 0.1 in float32."""
    advantages_B = group_normalised_advantage(torch.tensor([0.1, 0.1, 0.1, 0.7]), ["a", "a", "a", "b"], eps)
    assert advantages_B.tolist() == [0.0] * 4


def test_the_default_eps_is_the_released_codes():
    rewards_B = torch.tensor([0.0, 1.0])
    assert group_normalised_advantage(rewards_B, [0, 0])[1].item() == pytest.approx(0.5 / (0.5**0.5 + 1e-4), rel=1e-6)


def test_verls_grpo_gives_the_same_for_groups_of_two_and_more():
    core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    rewards_B = torch.tensor([0.0, 0.5, 1.0, 1.0, 0.25, 0.5])
    index = np.array(["a", "b", "a", "a", "b", "b"], dtype=object)
    mask_BT = torch.ones(6, 3)
    token_rewards_BT = torch.cat([torch.zeros(6, 2), rewards_B[:, None]], 1)
    expected_BT, _ = core_algos.compute_grpo_outcome_advantage(token_rewards_BT, mask_BT, index, epsilon=1e-4)
    torch.testing.assert_close(group_normalised_advantage(rewards_B, index), expected_BT[:, 0])


def test_rewards_that_do_not_fit_the_ids_are_refused():
    with pytest.raises(ValueError, match=r"rewards_B has shape \(3,\), expected \[2\]"):
        group_normalised_advantage(torch.zeros(3), ["a", "b"])
