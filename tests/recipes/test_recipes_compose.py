"""Every recipe composes on stock verl and passes verl's checks and ours; the main one holds the paper's values."""

from __future__ import annotations

import copy
from functools import cache
from importlib import resources

import pytest
import verl  # noqa: F401 - loads the plugin
from omegaconf import OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

from verl_twgrpo.planning.command import compose_run
from verl_twgrpo.rewards.manager import mixture_from_config

pytestmark = pytest.mark.slow

PACKAGED = resources.files("verl_twgrpo.config.recipe")
NAMES = sorted(path.name[:-5] for path in PACKAGED.iterdir() if path.name.endswith(".yaml"))
MAIN = "qwen2_5_vl_7b_clevrer"

# keys that stock verl does not have: our settings, and two that its dataclasses have but its YAML does not list
OWN_KEYS = (
    "algorithm.packed_groups",
    "data_dir", "out_dir", "run_dir", "demo_dir", "benchmark", "algorithm.tw_grpo", "data.frame_cache",
    "actor_rollout_ref.actor.policy_loss.tw_grpo", "reward.custom_reward_function.reward_kwargs",
    "actor_rollout_ref.rollout.enable_sleep_mode", "actor_rollout_ref.actor.fsdp_config.mixed_precision",
    "actor_rollout_ref.ref.fsdp_config.mixed_precision",
    # left open by verl on purpose
    "ray_kwargs.ray_init", "actor_rollout_ref.model.override_config",
)  # fmt: skip


@cache
def composed_once(*overrides):
    return compose_run(list(overrides))


def composed(*overrides):
    return copy.deepcopy(composed_once(*overrides))


def validated(config):
    validate_config(config, need_reference_policy(config), need_critic(config))


def leaves(node, path=()):
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, str(key)))
        else:
            yield ".".join((*path, str(key)))


def test_the_recipes_of_the_paper_are_there():
    assert {
        MAIN, "qwen2_5_vl_7b_nextgqa", "qwen2_5_vl_7b_star", "qwen2_5_vl_7b_clevrer_released",
        "qwen2_5_vl_7b_clevrer_grpo", "qwen2_5_vl_3b", "qwen2_5_vl_3b_lora", "evaluate", "demo_cpu",
    } <= set(NAMES)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_it_passes_verls_checks_and_ours(name, stand_ins, capsys):
    validated(stand_ins(composed(f"recipe={name}")))
    assert "checks passed" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_without_its_data_the_run_ends_with_the_file(name, stand_ins):
    config = stand_ins(composed(f"recipe={name}"))
    OmegaConf.update(config, "data.train_files", "nowhere.parquet")
    with pytest.raises(SystemExit, match=r"data\.train_files=nowhere\.parquet: no such file"):
        validated(config)


@pytest.mark.parametrize("name", NAMES)
def test_it_sets_no_key_that_verl_lacks(name):
    stock = OmegaConf.to_container(composed("model_engine=dp"), resolve=False)
    known = set(leaves(stock))
    ours = OmegaConf.to_container(composed(f"recipe={name}"), resolve=False)
    invented = [key for key in leaves(ours) if key not in known and not key.startswith(OWN_KEYS)]
    assert not invented


@pytest.mark.parametrize("name", NAMES)
def test_verls_dataclasses_take_its_strict_nodes(name):
    config = composed(f"recipe={name}")
    OmegaConf.resolve(config)
    for node in (config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout):
        omega_conf_to_dataclass(node)


@pytest.mark.parametrize("name", NAMES)
def test_its_outputs_lie_in_one_folder_of_its_own(name):
    config = composed(f"recipe={name}")
    config.trainer.experiment_name = "mine"
    demo = name.startswith("demo")
    folder = config.demo_dir if demo else config.run_dir
    assert demo or "/mine" in folder
    for key in ("default_local_dir", "validation_data_dir", "rollout_data_dir"):
        assert config.trainer[key] is None or config.trainer[key].startswith(folder)


def test_the_main_recipe_is_the_papers_run():
    config = composed(f"recipe={MAIN}")
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    tw_grpo = config.algorithm.tw_grpo
    # Section 4.1
    assert config.actor_rollout_ref.model.path == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert (config.trainer.nnodes, config.trainer.n_gpus_per_node) == (1, 2)
    assert (config.trainer.total_training_steps, config.data.train_max_samples) == (500, 1000)
    assert config.data.train_batch_size == actor.ppo_mini_batch_size == 2
    # Tables 3 and A1
    assert (rollout.n, rollout.temperature, tw_grpo.alpha) == (8, 1.0, 0.7)
    # released script
    assert (actor.optim.lr, actor.optim.clip_grad, actor.freeze_vision_tower) == (1e-6, 20.0, True)
    assert (config.data.max_prompt_length, config.data.max_response_length) == (4096, 4096)
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.use_kl_loss) == (0.2, 0.28, False)
    assert not config.algorithm.use_kl_in_reward
    # the objective of the paper
    assert (tw_grpo.divergence, tw_grpo.weight) == ("jsd", "one_plus")
    assert (tw_grpo.placement, tw_grpo.scope) == ("outside", "all")
    assert (config.algorithm.adv_estimator, config.trainer.v1.trainer_mode) == ("tw_grpo", "tw_grpo")
    # Eq. 7
    assert config.reward.reward_manager.name == "multi_answer"
    assert config.reward.custom_reward_function.reward_kwargs == {
        "mode": "soft", "format_weight": 1.0, "lenient": False, "strict_format": False,
    }  # fmt: skip
    # Appendix C
    assert (rollout.val_kwargs.top_p, rollout.val_kwargs.temperature, rollout.val_kwargs.n) == (0.001, 0.01, 1)


SOURCED = (
    "train_files", "train_max_samples", "seed", "train_batch_size", "max_prompt_length", "path", "freeze_vision_tower",
    "ppo_mini_batch_size", "lr", "lr_scheduler_type", "weight_decay", "clip_grad", "offload_policy", "n", "temperature",
    "val_kwargs", "mode", "format_weight", "n_gpus_per_node", "total_epochs", "save_freq",
)  # fmt: skip


@pytest.mark.parametrize("key", SOURCED)
def test_a_value_of_the_main_recipe_has_its_source_above_it(key):
    lines = [line.strip() for line in PACKAGED.joinpath(f"{MAIN}.yaml").read_text().splitlines()]
    at = next(k for k, line in enumerate(lines) if line.startswith(f"{key}:"))
    comment = []
    while lines[at - 1].startswith("#"):
        at -= 1
        comment.insert(0, lines[at])
    assert any(word in " ".join(comment) for word in ("Section", "Table", "Eq.", "Appendix", "script", "code", "500"))


@pytest.mark.parametrize("name", ["qwen2_5_vl_7b_nextgqa", "qwen2_5_vl_7b_star"])
def test_other_data_is_all_that_differs(name):
    main, other = (OmegaConf.to_container(composed(f"recipe={n}"), resolve=False) for n in (MAIN, name))
    assert name.rsplit("_", 1)[-1] in other["data"].pop("train_files")
    assert other["trainer"].pop("experiment_name") == name
    del main["data"]["train_files"], main["trainer"]["experiment_name"]
    assert other == main


def test_the_released_variant_takes_the_released_objective():
    config = composed("recipe=qwen2_5_vl_7b_clevrer_released")
    assert (config.algorithm.tw_grpo.divergence, config.algorithm.tw_grpo.std_eps) == ("released", 1e-4)
    assert config.actor_rollout_ref.rollout.top_k == 50


def test_grpo_is_the_released_script():
    config = composed("recipe=qwen2_5_vl_7b_clevrer_grpo")
    actor = config.actor_rollout_ref.actor
    assert config.algorithm.tw_grpo.alpha == 0
    assert (actor.loss_agg_mode, actor.freeze_vision_tower) == ("seq-mean-token-mean", False)
    assert config.reward.custom_reward_function.reward_kwargs.mode == "exact"


def test_recipes_of_other_tasks_have_rewards_that_the_manager_takes():
    settings = {
        name: mixture_from_config(composed(f"recipe=qwen2_5_vl_7b_{name}")) for name in ("grounding", "video_r1")
    }
    assert settings["grounding"].of("temporal_grounding")[1].measure == "iou"
    common, regression = settings["video_r1"].of("regression")
    assert (common.length_bonus, tuple(common.length_window), common.max_tokens) == (0.2, (320, 512), 768)
    assert regression.measure == "relative_error"
    assert settings["video_r1"].of("multiple_choice")[1].mode == "exact"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "evaluate"])
def test_no_recipe_validates_on_what_it_trains_on(name):
    data = composed(f"recipe={name}").data
    assert data.val_files != data.train_files


def test_the_3b_recipes_need_one_gpu():
    full, lora = composed("recipe=qwen2_5_vl_3b"), composed("recipe=qwen2_5_vl_3b_lora")
    for config in (full, lora):
        assert (config.trainer.nnodes, config.trainer.n_gpus_per_node) == (1, 1)
        assert config.actor_rollout_ref.model.path == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert (full.actor_rollout_ref.model.lora_rank, lora.actor_rollout_ref.model.lora_rank) == (0, 64)
    # required by verl for LoRA
    assert lora.actor_rollout_ref.rollout.load_format == "safetensors"


def test_evaluation_trains_nothing_and_keeps_all_answers():
    config = composed("recipe=evaluate", "benchmark=mmvu/mmvu-validation", "trainer.experiment_name=mine")
    assert config.trainer.val_only and config.trainer.val_before_train
    assert (config.trainer.save_freq, config.trainer.resume_mode, config.data.val_max_samples) == (-1, "disable", -1)
    assert config.data.val_files == config.data.train_files == "data/mmvu/mmvu-validation.parquet"
    assert config.trainer.validation_data_dir == "outputs/evaluate/mine/mmvu/mmvu-validation/validation"
    values = config.actor_rollout_ref.rollout.val_kwargs
    assert (values.do_sample, values.top_p, values.temperature) == (True, 0.001, 0.01)


def test_the_algorithm_of_the_command_line_wins_over_the_recipe():
    assert composed(f"recipe={MAIN}", "algorithm=tw_grpo_released").algorithm.tw_grpo.divergence == "released"
    assert composed(f"recipe={MAIN}", "algorithm=grpo_token").algorithm.tw_grpo.alpha == 0
