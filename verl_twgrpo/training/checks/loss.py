"""The policy loss: whether it can take token weights, and whether its clip settings do anything."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from .registry import check
from .settings import read_settings

WORKS, NOTED, REFUSED = "works", "noted", "refused"
# Each policy loss of verl's (trainer/ppo/core_algos.py) under weights that are on the advantages, and the reason.
LOSSES = {
    "tw_grpo": (WORKS, "the clipped objective; Eq. 6 as printed with placement=eq6"),
    "vanilla": (WORKS, "w times the clipped objective of each token; DAPO's settings are settings of it"),
    "dppo_tv": (WORKS, "its mask looks at the sign of an advantage only"),
    "dppo_kl": (WORKS, "its mask looks at the sign of an advantage only"),
    "sapo": (WORKS, "its gate looks at the sign of an advantage only"),
    "gspo": (WORKS, "the importance ratio is the response's, the weight the token's"),
    "cispo": (WORKS, "w times the objective of each token"),
    "gpg": (WORKS, "w times the objective of each token"),
    "dro": (WORKS, "the weight is on the advantage; the quadratic penalty has none"),
    "clip_cov": (NOTED, "it chooses tokens by their advantages, which the token weights are in"),
    "kl_cov": (NOTED, "it chooses tokens by their advantages, which the token weights are in"),
    "geo_mean": (
        REFUSED,
        "it takes the mean of the advantages over a response, which makes one number of all its token weights",
    ),
    "bypass_mode": (REFUSED, "the old-log-prob step, where the weights come from, does not run"),
}


@check(runs="weighted")
def check_loss_takes_weights(config: DictConfig) -> list[str]:
    mode = config.actor_rollout_ref.actor.policy_loss.loss_mode
    key = f"actor_rollout_ref.actor.policy_loss.loss_mode={mode}"
    if read_settings(config.algorithm.tw_grpo).placement == "eq6" and mode != "tw_grpo":
        raise ValueError(
            f"{key}: placement eq6 is a property of the loss tw_grpo; set loss_mode=tw_grpo or "
            "algorithm.tw_grpo.placement=outside"
        )
    verdict, reason = LOSSES.get(mode, (WORKS, "a loss from outside verl"))
    if verdict == REFUSED:
        raise ValueError(f"{key}: {reason}; set loss_mode=tw_grpo")
    return [f"{key}: {reason}"] if verdict == NOTED else []


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
