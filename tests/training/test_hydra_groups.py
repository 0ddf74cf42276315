"""algorithm=NAME and recipe=NAME on stock verl; with nothing selected, verl's own configuration."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import pytest
import verl  # noqa: F401 - loads the plugin
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from verl.utils.config import omega_conf_to_dataclass

import verl_twgrpo.config
from verl_twgrpo.algorithm.anchors import Anchors
from verl_twgrpo.algorithm.temporal_bonus import TemporalBonus
from verl_twgrpo.config.hydra_groups import GROUPS, with_groups
from verl_twgrpo.training.checks import read_settings

pytestmark = pytest.mark.slow

PRINT = """
import sys
{first}
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
with initialize_config_module("verl.trainer.config", version_base=None):
    sys.stdout.write(OmegaConf.to_yaml(compose("ppo_trainer", overrides=sys.argv[1:])))
"""


def composed(*overrides):
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=list(overrides))


def printed(first, *overrides):
    done = subprocess.run(
        [sys.executable, "-c", PRINT.format(first=first), *overrides], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("engine", ["dp", "megatron"])
def test_with_nothing_selected_the_configuration_is_verls_byte_for_byte(engine):
    stock = printed("", f"model_engine={engine}")
    assert len(stock) > 10_000
    assert printed("import verl", f"model_engine={engine}") == stock


def test_stock_verl_has_no_such_groups_yet():
    # On the day it has, ours must not land inside it: hydra_groups then leaves the list alone.
    text = resources.files("verl.trainer.config").joinpath("ppo_trainer.yaml").read_text()
    keys = {str(key) for entry in OmegaConf.create(text).defaults if not isinstance(entry, str) for key in entry}
    assert not keys & {name for group in GROUPS for name in (group, f"{group}@{group}")}


def test_a_group_that_verl_has_itself_is_left_alone():
    defaults = OmegaConf.create(["_self_", {"algorithm@algorithm": None}])
    assert with_groups(defaults) == ["_self_", {"algorithm@algorithm": None}, {"recipe": None}]


@pytest.mark.parametrize("engine", ["dp", "megatron"])
def test_the_paper_is_one_flag(engine):
    config = composed(f"model_engine={engine}", "algorithm=tw_grpo")
    settings = config.algorithm.tw_grpo
    assert (settings.divergence, settings.alpha, settings.weight) == ("jsd", 0.7, "one_plus")
    assert (settings.placement, settings.scope, settings.detach) == ("outside", "all", True)
    assert config.algorithm.adv_estimator == "tw_grpo"
    assert config.trainer.v1.trainer_mode == "tw_grpo"
    actor = config.actor_rollout_ref.actor
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.loss_agg_mode) == (0.2, 0.28, "token-mean")
    assert actor.policy_loss.loss_mode == "tw_grpo"
    assert actor.policy_loss.tw_grpo == settings


def test_the_released_code_and_the_baseline_are_one_flag_each():
    released = composed("algorithm=tw_grpo_released").algorithm.tw_grpo
    assert (released.divergence, released.alpha, released.std_eps) == ("released", 0.7, 1e-4)
    baseline = composed("algorithm=grpo_token")
    assert baseline.algorithm.tw_grpo.alpha == 0
    assert baseline.actor_rollout_ref.actor.policy_loss.loss_mode == "vanilla"


@pytest.mark.parametrize(
    ("preset", "weighting", "passes"),
    [
        ("tw_grpo", "group_divergence", []),
        ("top_entropy", "top_entropy", []),
        ("entropy_shaping", "entropy_shaping", []),
        ("gtpo", "gtpo", []),
        ("vppo", "video_contrast", ["log_probs_patches"]),
        ("pgpo", "video_contrast", ["log_probs_blank"]),
        ("video_ktr", "video_contrast", ["log_probs_blank", "log_probs_shuffled"]),
        ("tapo", "video_contrast", ["log_probs_frozen"]),
        ("oracle", "oracle", []),
    ],
)
def test_every_weighting_is_one_flag_and_its_settings_reach_it(preset, weighting, passes):
    config = composed(f"algorithm={preset}")
    made = omega_conf_to_dataclass(config.algorithm.tw_grpo).make_weighting()
    assert (made.name, list(made.extra_passes), made.active) == (weighting, passes, True)
    assert read_settings(config.algorithm.tw_grpo).make_weighting().settings == made.settings
    for name, value in config.algorithm.tw_grpo.settings.items():
        assert getattr(made.settings, name) == value


def test_estimators_for_groups_without_spread_and_for_mixtures_of_tasks_are_one_flag_each():
    sova = omega_conf_to_dataclass(composed("algorithm=sova").algorithm.tw_grpo)
    assert (sova.made_anchors, sova.weighted) == (Anchors(), True)
    ema = composed("algorithm=ema_grpo").algorithm
    assert (ema.adv_estimator, ema.tw_grpo.std, ema.tw_grpo.alpha) == ("tw_grpo", "task", 0)
    assert read_settings(composed("algorithm=tw_grpo").algorithm.tw_grpo).made_anchors is None


def test_t_grpo_is_one_flag_on_its_own_and_over_the_recipe_of_its_authors_data():
    for words in (["algorithm=t_grpo"], ["recipe=qwen2_5_vl_7b_video_r1", "algorithm=t_grpo"]):
        config = composed(*words)
        settings = omega_conf_to_dataclass(config.algorithm.tw_grpo)
        assert (settings.made_temporal_bonus, settings.weighted) == (TemporalBonus(), False)
        actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
        assert (actor.loss_agg_mode, actor.kl_loss_coef, actor.clip_ratio_high) == ("seq-mean-token-mean", 0.04, 0.2)
        assert rollout.agent.default_agent_loop == "shuffling_single_turn_agent"


def test_every_preset_of_an_algorithm_is_tested():
    folder = Path(verl_twgrpo.config.__file__).parent / "algorithm"
    tested = {"tw_grpo_released", "grpo_token", "tw_grpo", "top_entropy", "entropy_shaping", "gtpo", "vppo", "pgpo"}
    assert {path.stem for path in folder.glob("*.yaml")} == tested | {
        "video_ktr", "tapo", "sova", "ema_grpo", "oracle", "t_grpo",
    }  # fmt: skip


def test_a_setting_of_a_weighting_is_one_override():
    made = read_settings(composed("algorithm=vppo", "algorithm.tw_grpo.settings.keep=0.3").algorithm.tw_grpo)
    assert made.make_weighting().settings.keep == 0.3


def test_later_overrides_win_over_a_recipe_and_a_recipe_over_the_algorithm():
    config = composed("recipe=demo_cpu", "algorithm.tw_grpo.alpha=0.3", "actor_rollout_ref.rollout.n=4")
    assert config.algorithm.tw_grpo.alpha == 0.3
    assert config.algorithm.tw_grpo.divergence == "jsd"
    assert config.actor_rollout_ref.rollout.n == 4
    assert composed("algorithm=tw_grpo_released", "recipe=demo_cpu").trainer.device == "cpu"


def test_an_unknown_key_is_named_when_composing():
    with pytest.raises(Exception, match="alhpa"):
        composed("algorithm=tw_grpo", "algorithm.tw_grpo.alhpa=1")


def test_without_plugins_the_group_is_reachable_by_the_search_path():
    path = "hydra.searchpath=[pkg://verl_twgrpo.config]"
    out = printed("", path, "+algorithm=tw_grpo")
    assert OmegaConf.create(out).algorithm.tw_grpo.alpha == 0.7


def test_other_hydra_programs_are_left_alone(tmp_path):
    (tmp_path / "ppo_trainer.yaml").write_text("mine: 1\n")
    from hydra import initialize_config_dir

    with initialize_config_dir(str(tmp_path), version_base=None):
        assert compose("ppo_trainer") == {"mine": 1}


def test_the_entry_points_are_installed():
    (entry,) = [e for e in metadata.entry_points(group="verl.plugins") if e.value == "verl_twgrpo.plugin"]
    assert entry.name == "tw_grpo"  # verl lower-cases the names that VERL_USE_EXTERNAL_PLUGINS lists
    assert any(e.value.startswith("verl_twgrpo") for e in metadata.entry_points(group="vllm.platform_plugins"))
