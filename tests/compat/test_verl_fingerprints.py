"""What this plugin overrides, wraps or mirrors in verl is what it was written against; a change is named.

If this fails after an upgrade of verl: read what moved, change what depends on it, then enter the new fingerprint and
the version in training/checks/version.py.
"""

from __future__ import annotations

import hashlib
import inspect
from importlib import import_module

import pytest

from verl_twgrpo.training.checks.version import TESTED

# module:name -> first 12 digits of the SHA-256 of its lines, without indentation, empty lines and lines of comment
FINGERPRINTS = {
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer.__init__": "348211b5d973",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._init_resource_pool_mgr": "160a338a9611",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer.fit": "4cb374b93635",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._save_checkpoint": "93327068e9a1",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._load_checkpoint": "4f6c4d84ab5b",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._next_train_batch": "f828b066f260",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._balance_batch": "dc0466dd5803",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._compute_old_log_prob": "706c0fdffe1b",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._compute_advantage": "7d2ef67151c0",
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._get_required_batch_multiple": "14ac5713db9b",
    "verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync": "1bc8ebf5ff0f",
    "verl.trainer.ppo.v1.trainer_colocate_async:PPOTrainerColocateAsync": "962a40d4195c",
    "verl.trainer.ppo.v1.trainer_separate_async:PPOTrainerSeparateAsync": "cf7de61acb0c",
    "verl.experimental.separation.engine_workers:DetachActorWorker": "0d83a91658df",
    "verl.trainer.ppo.v1.replay_buffer:ReplayBuffer": "61c7b70b4f4b",
    "verl.trainer.ppo.padding_utils:upsample_batch_to_divisible_size": "ece6c9000aa1",
    "verl.trainer.ppo.core_algos:agg_loss": "de10b50495a2",
    "verl.trainer.ppo.core_algos:register_policy_loss": "954a4bd6cb7b",
    "verl.trainer.ppo.core_algos:register_adv_est": "3dea7525905a",
    "verl.trainer.ppo.core_algos:compute_policy_loss_vanilla": "9c2cbdd34110",
    "verl.trainer.main_ppo:run_ppo": "95316c8855fd",
    "verl.trainer.main_ppo:main": "bf79d117f120",
    "verl.utils.config:validate_config": "0ea5fdbc89d6",
    "verl.utils.checkpoint.checkpoint_manager:BaseCheckpointManager.ensure_checkpoint_capacity": "d35a88698e97",
    "verl.utils.checkpoint.checkpoint_manager:BaseCheckpointManager.register_checkpoint": "173e9ec3df55",
    "verl.utils.checkpoint.checkpoint_manager:find_latest_ckpt_path": "d691c55664d3",
    "verl.utils.fsdp_utils:fsdp2_sharded_save_to_cpu": "b9228d838dd7",
    "verl.utils.distributed:initialize_global_process_group": "5f46d4b0dfeb",
    "verl.utils.distributed:initialize_global_process_group_ray": "c6da4a17851b",
    "verl.utils.tensordict_utils:maybe_fix_3d_position_ids": "22a5987b209c",
    "verl.utils.dataset.rl_dataset:RLHFDataset._build_messages": "152a3947136a",
    "verl.models.transformers.qwen2_vl:_get_input_embeds": "ebb2708948cf",
    "verl.models.transformers.qwen2_vl:get_rope_index": "63bc23aec23b",
    "verl.models.transformers.qwen3_vl:_get_input_embeds": "2200ca344681",
    "verl.models.transformers.qwen3_5:_get_input_embeds": "a06b7897d4bc",
    "verl.workers.config.actor:FSDPActorConfig.__post_init__": "813215d414da",
    "verl.workers.config.actor:PolicyLossConfig": "218b2ed30e5a",
    "verl.workers.engine_workers:TrainingWorker.__init__": "387cf6dd139b",
    "verl.workers.engine_workers:ActorRolloutRefWorker.__init__": "bec58c869cd9",
    "verl.workers.engine_workers:ActorRolloutRefWorker.init_model": "25664c026497",
    "verl.workers.engine.fsdp.transformer_impl:FSDPEngine._build_fsdp_module": "e1b5b49e5071",
    "verl.workers.engine.fsdp.transformer_impl:FSDPEngineWithLMHead.prepare_model_inputs": "1746325c559b",
    "verl.workers.engine.fsdp.transformer_impl:FSDPEngineWithLMHead.prepare_model_outputs": "3b0ac6836a54",
    "verl.workers.engine.fsdp.transformer_impl:FSDPEngineWithLMHead.forward_step": "40e6d59ac8f7",
    "verl.workers.utils.losses:ppo_loss": "2fa5dacc6acf",
    "verl.workers.utils.padding:response_from_nested": "7da3a17d9cb6",
    "verl.workers.rollout.vllm_rollout.utils:vLLMColocateWorkerExtension": "002d3ad6ed0b",
    "verl.experimental.agent_loop.single_turn_agent_loop:SingleTurnAgentLoop.run": "77156c6a69f1",
    "verl.experimental.reward_loop.reward_manager.base:RewardManagerBase": "290af6103241",
}


def fingerprint(source: str) -> str:
    lines = (line.strip() for line in source.splitlines())
    return hashlib.sha256("\n".join(line for line in lines if line and line[0] != "#").encode()).hexdigest()[:12]


def source_of(name: str) -> str:
    """The stock source, below whatever wraps it."""
    module, _, inner = name.partition(":")
    value = import_module(module)
    for part in inner.split("."):
        value = inspect.getattr_static(value, part)
    value = inspect.unwrap(getattr(value, "__func__", value))
    return inspect.getsource(value)


@pytest.mark.slow
@pytest.mark.parametrize("name", FINGERPRINTS)
def test_it_has_not_moved(name):
    assert fingerprint(source_of(name)) == FINGERPRINTS[name], f"{name} is not what it was in verl {TESTED[-1]}"


def test_a_fingerprint_sees_code_and_nothing_else():
    source = "def f(a):\n    return a\n"
    assert fingerprint(source) == fingerprint("    def f(a):\n\n        # says\n        return a\n")
    assert fingerprint(source) != fingerprint(source.replace("return a", "return -a"))
