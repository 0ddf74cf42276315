"""The advantage estimator, and what verl can change about it."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.core_algos import AdvantageEstimator

from verl_twgrpo.training.modes import is_ours

from .registry import check


@check()
def check_critic(config: DictConfig) -> None:
    # as verl's need_critic (verl/trainer/ppo/utils.py), which warns each time that there is none
    wanted = config.critic.enable
    if wanted if wanted is not None else config.algorithm.adv_estimator == AdvantageEstimator.GAE:
        raise ValueError(
            f"algorithm.adv_estimator={config.algorithm.adv_estimator}: TW-GRPO has no critic; use tw_grpo (or another "
            "estimator without one) and leave critic.enable unset"
        )


@check(runs="training")
def check_standard_deviation(config: DictConfig) -> None:
    if config.algorithm.adv_estimator == "tw_grpo" and not config.algorithm.get("norm_adv_by_std_in_grpo", True):
        raise ValueError(
            "algorithm.norm_adv_by_std_in_grpo=False: the estimator tw_grpo divides by the standard deviation of the "
            "group (Eq. 1) and would not look at it; set algorithm.adv_estimator=grpo, or leave it True"
        )


@check(runs="training")
def check_estimator_settings(config: DictConfig) -> None:
    settings, estimator = config.algorithm.tw_grpo, config.algorithm.adv_estimator
    used = [name for name, off in (("anchors", None), ("std", "group")) if settings.get(name, off) != off]
    if not used:
        return
    mode = config.trainer.v1.trainer_mode
    for key, value, heeds in (
        ("algorithm.adv_estimator", estimator, estimator == "tw_grpo"),
        ("trainer.v1.trainer_mode", mode, is_ours(config)),
    ):
        if not heeds:
            raise ValueError(
                f"algorithm.tw_grpo.{used[0]}={settings[used[0]]}: nobody would look at it with {key}={value}; "
                f"set {key}=tw_grpo"
            )


@check(runs="weighted")
def check_bypass_mode(config: DictConfig) -> None:
    if OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode"):
        raise ValueError(
            "algorithm.rollout_correction.bypass_mode=True: the old-log-prob step, where the weights come from, would "
            "not run; set it to False"
        )
