"""``algorithm.tw_grpo``: whether it is there, and each setting one that exists with a value that is possible."""

from __future__ import annotations

from dataclasses import fields

from omegaconf import DictConfig, OmegaConf

from verl_twgrpo.config.near_names import no_such_setting
from verl_twgrpo.training.modes import OURS
from verl_twgrpo.training.settings import TWGRPOConfig


def check_settings(config: DictConfig) -> bool:
    """Whether the run has ``algorithm.tw_grpo``. Raises ``ValueError`` if it has none but needs it."""
    if OmegaConf.select(config, "algorithm.tw_grpo") is not None:
        return True
    for key, ours in (
        ("trainer.v1.trainer_mode", list(OURS.values())),
        ("actor_rollout_ref.actor.policy_loss.loss_mode", ["tw_grpo"]),
    ):
        value = OmegaConf.select(config, key)
        if value in ours:
            raise ValueError(
                f"algorithm.tw_grpo is not set, but {key}={value}: select algorithm=tw_grpo, which sets both; for a "
                "run without token weights take algorithm=grpo_token"
            )
    return False


def read_settings(node: DictConfig) -> TWGRPOConfig:
    """The settings in ``algorithm.tw_grpo``. Raises ``ValueError`` naming an unknown key or a bad value."""
    values = OmegaConf.to_container(node, resolve=True)
    values.pop("_target_", None)
    known = {field.name: None for field in fields(TWGRPOConfig) if not field.name.startswith("_")}
    unknown = sorted(set(values) - set(known))
    if unknown:
        key = f"algorithm.tw_grpo.{unknown[0]}"
        raise ValueError(no_such_setting(key, OmegaConf.create({"algorithm": {"tw_grpo": known}})))
    return TWGRPOConfig(**values)
