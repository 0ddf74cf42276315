"""Bytes by formula, and steps by verl's count."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from omegaconf import OmegaConf

from verl_twgrpo.planning.command import compose_run
from verl_twgrpo.planning.gpu_memory import gpu_memory
from verl_twgrpo.planning.model import ModelSizes
from verl_twgrpo.planning.resources import (
    checkpoint_bytes,
    training_state_bytes,
    waiting_bytes,
    weights_pass_bytes,
)
from verl_twgrpo.planning.steps import steps

SIZES = ModelSizes(hidden=8, vocabulary=16, context=128, parameters=100, trainable=60, layers=2, folder=None)


def test_the_weights_pass_of_the_paper_takes_446_mib():
    assert weights_pass_bytes("cuda", None, 8, 152064) == 1.5 * 512 * 152064 * 4
    assert round(weights_pass_bytes("cuda", None, 8, 152064) / 2**20) == 446
    assert weights_pass_bytes("cuda", 64, 8, 152064) == 1.5 * 64 * 152064 * 4
    # a chunk holds four positions of a whole group at least
    assert weights_pass_bytes("cuda", 64, 32, 152064) == 1.5 * 128 * 152064 * 4


def test_a_waiting_group_is_its_hidden_states_in_bfloat16():
    hidden = torch.empty(8 * 4096, 3584, dtype=torch.bfloat16, device="meta")
    assert waiting_bytes(8, 4096, 3584) == hidden.numel() * hidden.element_size()


def test_training_state_is_what_adam_keeps():
    module = torch.nn.Linear(10, 10, bias=False)
    module.weight.grad = torch.ones_like(module.weight)
    adam = torch.optim.AdamW(module.parameters())
    adam.step()
    moments = sum(v.numel() * 4 for state in adam.state.values() for k, v in state.items() if k != "step")
    sizes = ModelSizes(10, 10, 10, parameters=100, trainable=100, layers=2, folder=None)
    assert training_state_bytes(sizes, "fp32") == {"parameters": 400, "gradients": 400, "optimizer": moments}


def test_frozen_parameters_have_neither_gradients_nor_moments():
    assert training_state_bytes(SIZES, "bf16") == {"parameters": 200, "gradients": 120, "optimizer": 240}
    assert checkpoint_bytes(SIZES, "fp32", ["model", "optimizer", "extra"]) == 400 + 480
    assert checkpoint_bytes(SIZES, "fp32", ["model", "hf_model"]) == 800
    assert training_state_bytes(SIZES, None) == training_state_bytes(SIZES, "fp32")


@cache
def main_recipe():
    return compose_run(["recipe=qwen2_5_vl_7b_clevrer"])


def changed(folder, **values):
    config = main_recipe().copy()
    for key, value in {"out_dir": str(folder), **values}.items():
        OmegaConf.update(config, key, value)
    return config


@pytest.mark.slow
def test_the_papers_run_has_500_steps_and_five_checkpoints(tmp_path):
    made = steps(changed(tmp_path), None)
    assert (made.first, made.last, made.per_epoch, made.saves, made.on_disk) == (0, 500, 500, 5, 2)


def test_a_run_ends_with_its_data(tmp_path):
    assert steps(changed(tmp_path), 301).last == 150
    assert steps(changed(tmp_path, **{"trainer.total_epochs": 2}), 301).last == 300
    assert steps(changed(tmp_path, **{"trainer.total_epochs": 9}), 301).last == 500
    assert steps(changed(tmp_path, **{"trainer.total_training_steps": None}), 301).last == 150


def test_no_more_samples_are_used_than_asked_for(tmp_path):
    assert steps(changed(tmp_path), 9999).per_epoch == 500
    assert steps(changed(tmp_path, **{"data.train_max_samples": -1}), 9999).per_epoch == 4999


def test_without_a_file_and_a_limit_nobody_knows(tmp_path):
    made = steps(changed(tmp_path, **{"data.train_max_samples": -1, "trainer.total_training_steps": None}), None)
    assert (made.last, made.per_epoch, made.saves) == (None, None, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("kept", "on_disk"), [(None, 5), (1, 2), (3, 3), (9, 5)])
def test_checkpoints_on_disk_follow_verls_order_of_deleting(tmp_path, kept, on_disk):
    assert steps(changed(tmp_path, **{"trainer.max_actor_ckpt_to_keep": kept}), None).on_disk == on_disk


def test_the_last_step_is_saved_too(tmp_path):
    assert steps(changed(tmp_path, **{"trainer.save_freq": 300}), None).saves == 2
    assert steps(changed(tmp_path, **{"trainer.save_freq": -1}), None).saves == 0


def test_a_run_that_was_stopped_is_found(tmp_path):
    folder = tmp_path / "qwen2_5_vl_7b_clevrer" / "checkpoints"
    (folder / "global_step_200" / "actor").mkdir(parents=True)
    (folder / "latest_checkpointed_iteration.txt").write_text("200")
    made = steps(changed(tmp_path), None)
    assert (made.first, made.saves) == (200, 3)
    assert steps(changed(tmp_path, **{"trainer.resume_mode": "disable"}), None).first == 0


def test_too_little_data_for_one_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data\.train_batch_size=2: the training data has 1 rows only"):
        steps(changed(tmp_path), 1)


def test_gpu_memory_by_hand():
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {
                "model": {"enable_gradient_checkpointing": True},
                "actor": {
                    "use_dynamic_bsz": True,
                    "ppo_max_token_len_per_gpu": 100,
                    "fsdp_config": {"offload_policy": False, "param_offload": False, "optimizer_offload": True},
                },
                "rollout": {
                    "prompt_length": 30, "response_length": 20, "tensor_model_parallel_size": 2,
                    "gpu_memory_utilization": 0.5,
                },
            }
        }
    )  # fmt: skip
    state = {"parameters": 1000, "gradients": 600, "optimizer": 1200}
    need = gpu_memory(config, SIZES, state)
    # two layers' inputs in 16 bits, and one layer at work; logits and their gradient; the head of 16 x 8
    assert (need.activations, need.logits, need.gathered) == ((2 * 2 + 34) * 100 * 8, 2 * 2 * 100 * 16, 2 * 16 * 8)
    assert need.update == 2800 + need.activations + need.logits + need.gathered == need.needed
    assert (need.rollout_weights, need.beside) == (100, 1600)
    # with a small share for vLLM its weights decide, with a large one the state beside it
    rollout = config.actor_rollout_ref.rollout
    rollout.gpu_memory_utilization = 0.001
    assert gpu_memory(config, SIZES, state).needed == need.update  # 1% is the least: 100 / 0.01 is below
    rollout.gpu_memory_utilization = 0.98
    assert gpu_memory(config, SIZES, state).needed == pytest.approx(1600 / 0.02, abs=1)
    config.actor_rollout_ref.actor.fsdp_config.offload_policy = True
    assert gpu_memory(config, SIZES, state).state == gpu_memory(config, SIZES, state).beside == 0
    config.actor_rollout_ref.actor.use_dynamic_bsz = False
    config.actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu = 3
    assert gpu_memory(config, SIZES, state).tokens == 150
