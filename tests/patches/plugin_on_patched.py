"""The plugin on a patched verl; test_patches.py runs it with that verl first on the path."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import verl
import verl.utils.torch_functional as verl_F
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from verl.models.transformers import qwen2_vl
from verl.trainer.ppo import core_algos
from verl.utils import tensordict_utils
from verl.utils.config import omega_conf_to_dataclass, validate_config

from verl_twgrpo.algorithm import group_divergence, token_weights
from verl_twgrpo.training.losses import tw_grpo_advantage, tw_grpo_loss

STOCK = json.loads(Path(os.environ["STOCK_CONFIGURATIONS"]).read_text(encoding="utf-8"))

# What the patches add to verl's defaults.
ADDED = {"actor_rollout_ref.actor.policy_loss.tw_grpo_alpha": 0.7, "trainer.v1.keep_groups_whole": False}


def composed(*overrides):
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=list(overrides))


def leaves(node, path=()):
    if isinstance(node, dict) and node:
        return {key: leaf for name, child in node.items() for key, leaf in leaves(child, (*path, str(name))).items()}
    return {".".join(path): node}


def test_it_is_the_patched_verl():
    assert Path(verl.__file__).resolve().is_relative_to(Path(os.environ["PATCHED_VERL"]).resolve())


@pytest.mark.parametrize("selection", STOCK)
def test_a_selection_composes_to_the_same_values(selection):
    assert leaves(OmegaConf.to_container(composed(selection))) == leaves(STOCK[selection]) | ADDED


def test_verls_own_presets_are_selectable_too():
    assert composed("algorithm=grpo").algorithm.adv_estimator == "grpo"


def test_the_plugins_loss_and_estimator_are_the_registered_ones():
    assert core_algos.get_policy_loss_fn("tw_grpo") is tw_grpo_loss
    assert core_algos.get_adv_estimator_fn("tw_grpo") is tw_grpo_advantage
    # so that verl's own weights pass stays off, and does not ask for its settings
    assert core_algos.get_policy_loss_token_fields("tw_grpo") == ()


def test_the_policy_loss_settings_are_the_plugins():
    config = composed("algorithm=tw_grpo", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1")
    assert omega_conf_to_dataclass(config.actor_rollout_ref.actor).policy_loss.tw_grpo.divergence == "jsd"


@pytest.mark.parametrize(
    "hooked",
    [validate_config, tensordict_utils.maybe_fix_3d_position_ids, qwen2_vl._get_input_embeds],
    ids=lambda hooked: hooked.__name__,
)
def test_the_plugins_hooks_are_in_place(hooked):
    assert hasattr(hooked, "__wrapped__")


def test_the_plugins_trainer_and_reward_manager_are_registered():
    from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls
    from verl.trainer.ppo.v1 import get_trainer_cls

    assert get_trainer_cls("tw_grpo").__module__ == "verl_twgrpo.training.trainer"
    assert get_reward_manager_cls("multi_answer").__module__ == "verl_twgrpo.rewards.manager"


def test_position_ids_mended_twice_are_right():
    rows = [torch.arange(4 * n).view(4, n) for n in (5, 5)]
    data = tensordict_utils.get_tensordict(
        {
            "input_ids": torch.nested.as_nested_tensor([torch.arange(5)] * 2, layout=torch.jagged),
            "position_ids": torch.nested.as_nested_tensor(rows, layout=torch.jagged),
        }
    )
    tensordict_utils.maybe_fix_3d_position_ids(data)
    for row, expected in zip(data["position_ids"].unbind(), rows, strict=True):
        assert torch.equal(row, expected)


def test_the_patches_weights_are_the_papers():
    lengths, prompts, vocabulary = [6, 3, 9], [2, 4, 1], 17
    logits = 2 * torch.randn(sum(lengths) + sum(prompts), vocabulary, generator=torch.Generator().manual_seed(0))
    offsets = torch.tensor([0, *(p + n for p, n in zip(prompts, lengths, strict=True))]).cumsum(0)
    ends = offsets[1:].tolist()
    log_probs_GTV = torch.zeros(3, 9, vocabulary)
    for row, (end, n) in enumerate(zip(ends, lengths, strict=True)):
        log_probs_GTV[row, :n] = logits[end - n - 1 : end - 1].log_softmax(-1)
    ours_T = group_divergence(log_probs_GTV, lengths, "jsd")
    theirs = verl_F.calculate_group_divergence_from_logits(logits, offsets, torch.tensor(lengths), ["a"] * 3)
    theirs_T = theirs[ends[2] - 10 : ends[2] - 1]
    torch.testing.assert_close(theirs_T, ours_T, rtol=1e-5, atol=1e-5)

    weights = core_algos.compute_tw_grpo_weights(theirs_T.expand(3, 9), torch.tensor(lengths), ["a"] * 3, 3, 0.7)
    expected_T = token_weights(ours_T, lengths, alpha=0.7, weight="one_plus")
    for row, n in enumerate(lengths):
        torch.testing.assert_close(weights[row, :n], expected_T[:n], rtol=1e-5, atol=1e-5)
