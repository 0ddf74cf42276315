"""The trainer: verl's synchronous V1 trainer, as ``tw_grpo``, started by verl's own entry point."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from .registry import check
from .settings import read_settings

# keys that the configurations of verl's asynchronous entry points have at their top
# (verl/experimental/one_step_off_policy/config, fully_async_policy/config)
OTHER_ENTRY_POINTS = {"async_training": "fully_async_policy", "rollout": "one_step_off_policy"}


@check()
def check_trainer(config: DictConfig) -> None:
    """Other trainers never look at the token weights."""
    mode = config.trainer.v1.trainer_mode
    if not config.trainer.use_v1:
        raise ValueError("trainer.use_v1=False: TW-GRPO runs on verl's V1 trainer only; leave it True")
    weighted = read_settings(config.algorithm.tw_grpo).weighted
    if mode != "tw_grpo" and (weighted or mode != "sync"):
        raise ValueError(
            f"trainer.v1.trainer_mode={mode}: token weights need the synchronous trainer tw_grpo; verl's asynchronous "
            "modes are not supported, leave the mode that algorithm=... sets"
        )


@check(runs="weighted")
def check_entry_point(config: DictConfig) -> None:
    for key, name in OTHER_ENTRY_POINTS.items():
        if OmegaConf.select(config, key) is not None:
            raise ValueError(
                f"{key}: this is the configuration of verl's {name}, whose trainer computes no token weights; start "
                "the run with python -m verl.trainer.main_ppo"
            )


@check()
def check_hybrid_engine(config: DictConfig) -> None:
    if not config.actor_rollout_ref.get("hybrid_engine", True):
        raise ValueError(
            "actor_rollout_ref.hybrid_engine=False: the synchronous trainer keeps actor and rollout on the same "
            "devices and does not look at it; leave it True"
        )


@check()
def check_parameter_sync_step(config: DictConfig) -> None:
    step = OmegaConf.select(config, "trainer.v1.sync.parameter_sync_step", default=1)
    if step != 1:
        raise ValueError(
            f"trainer.v1.sync.parameter_sync_step={step}: the synchronous trainer hands parameters over after every "
            "step; leave it out"
        )


@check()
def check_validation_only(config: DictConfig) -> None:
    if config.trainer.val_only and not config.trainer.val_before_train:
        raise ValueError("trainer.val_only=True: verl heeds it only with trainer.val_before_train=True, else it trains")
