"""The policy loss: whether it can take token weights, and whether its clip settings do anything."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from .registry import check
from .settings import read_settings

# choose the tokens of their penalty by advantage and log-prob (verl/trainer/ppo/core_algos.py)
CHOOSE_BY_ADVANTAGE = ("clip_cov", "kl_cov")


@check(runs="weighted")
def check_loss_takes_weights(config: DictConfig) -> list[str]:
    mode = config.actor_rollout_ref.actor.policy_loss.loss_mode
    key = f"actor_rollout_ref.actor.policy_loss.loss_mode={mode}"
    if read_settings(config.algorithm.tw_grpo).placement == "eq6" and mode != "tw_grpo":
        raise ValueError(
            f"{key}: placement eq6 is a property of the loss tw_grpo; set loss_mode=tw_grpo or "
            "algorithm.tw_grpo.placement=outside"
        )
    if mode == "geo_mean":
        raise ValueError(
            f"{key}: it takes the mean of the advantages over a response, which makes one number of all its token "
            "weights; set loss_mode=tw_grpo"
        )
    if mode in CHOOSE_BY_ADVANTAGE:
        return [f"{key}: it chooses tokens by their advantages, which the token weights are in"]
    return []


@check(runs="training")
def check_clip(config: DictConfig) -> None:
    actor = config.actor_rollout_ref.actor
    low, high = actor.clip_ratio_low, actor.clip_ratio_high
    for name, value in (("clip_ratio_low", low), ("clip_ratio_high", high)):
        if value is not None and value < 0:
            raise ValueError(f"actor_rollout_ref.actor.{name}={value}: need 0 or more (paper: 0.2 and 0.28)")
    if low is not None and low >= 1:
        raise ValueError(f"actor_rollout_ref.actor.clip_ratio_low={low}: need less than 1, as ratios are positive")
    if None not in (low, high) and actor.clip_ratio not in (0.2, low, high):
        raise ValueError(
            f"actor_rollout_ref.actor.clip_ratio={actor.clip_ratio}: it has no effect beside clip_ratio_low={low} and "
            f"clip_ratio_high={high}; set those"
        )
    if actor.clip_ratio_c <= 1:
        raise ValueError(f"actor_rollout_ref.actor.clip_ratio_c={actor.clip_ratio_c}: need more than 1 (dual clip)")


@check(runs="training")
def check_distillation(config: DictConfig) -> None:
    if OmegaConf.select(config, "distillation.enabled"):
        raise ValueError(
            "distillation.enabled=True: verl's distillation loss takes the place of the policy loss in which the token "
            "weights are; set it to False"
        )
