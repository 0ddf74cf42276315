"""Batch geometry, and the mistakes in it."""

from __future__ import annotations

from functools import cache

import pytest
from omegaconf import OmegaConf

from verl_twgrpo.planning.command import compose_run
from verl_twgrpo.training.batches import batches

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


@cache
def main_recipe():
    return compose_run(["recipe=qwen2_5_vl_7b_clevrer"])


def changed(**values):
    config = main_recipe().copy()
    for key, value in values.items():
        OmegaConf.update(config, key, value)
    return config


@pytest.mark.slow
def test_the_papers_step_is_one_group_a_rank_and_one_update():
    made = batches(changed())
    assert (made.prompts, made.n, made.ranks, made.rows, made.padding) == (2, 8, 2, 16, 0)
    assert (made.groups_per_rank, made.rows_per_rank, made.rows_per_update, made.updates) == (1, 8, 16, 1)


@pytest.mark.slow
def test_smaller_mini_batches_make_more_updates_and_epochs_repeat_them():
    made = batches(changed(**{"data.train_batch_size": 8, f"{ACTOR}.ppo_mini_batch_size": 2, f"{ACTOR}.ppo_epochs": 3}))
    assert (made.rows, made.rows_per_update, made.updates) == (64, 16, 12)


def test_what_no_update_divides_is_filled_up():
    made = batches(changed(**{f"{ACTOR}.ppo_mini_batch_size": 3, f"{ROLLOUT}.n": 4}))
    assert (made.rows, made.padding, made.updates) == (12, 4, 1)


@pytest.mark.parametrize("key", [f"{ACTOR}.ulysses", f"{ACTOR}.fsdp_config.ulysses"])
def test_sequence_parallel_ranks_share_their_rows_by_either_key(key):
    made = batches(changed(**{"trainer.n_gpus_per_node": 4, f"{key}_sequence_parallel_size": 2}))
    assert (made.ranks, made.rows_per_rank) == (2, 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({f"{ROLLOUT}.n": 3, "trainer.n_gpus_per_node": 4}, r"actor\.ppo_mini_batch_size=2: .* 3 responses .* 4 data"),
        ({f"{ROLLOUT}.tensor_model_parallel_size": 4}, r"tensor_model_parallel_size=4: engines of 4 GPUs .* 2 GPUs"),
        ({f"{ACTOR}.ulysses_sequence_parallel_size": 3}, r"ulysses_sequence_parallel_size=3: does not divide 2 GPUs"),
        ({f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size": 3}, r"fsdp_config.ulysses_sequence_parallel_size=3: "),
        ({f"{ACTOR}.ppo_max_token_len_per_gpu": 8191}, r"actor\.ppo_max_token_len_per_gpu=8191: .* 8192 tokens"),
        ({f"{ROLLOUT}.log_prob_max_token_len_per_gpu": 1}, r"rollout\.log_prob_max_token_len_per_gpu=1: "),
        (
            {f"{ACTOR}.use_dynamic_bsz": False, f"{ACTOR}.ppo_micro_batch_size_per_gpu": 3},
            r"actor\.ppo_micro_batch_size_per_gpu=3: does not divide the 8 rows",
        ),
        (
            {f"{ROLLOUT}.log_prob_use_dynamic_bsz": False, f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": 5},
            r"rollout\.log_prob_micro_batch_size_per_gpu=5: does not divide the 8 rows",
        ),
    ],
)
def test_a_geometry_that_cannot_be_is_refused_with_its_key(values, message):
    with pytest.raises(ValueError, match=message):
        batches(changed(**values))
