"""The trainer: one of verl's V1 trainers with ours before it, started by verl's own entry point."""

from __future__ import annotations

from functools import wraps
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_twgrpo.config.hydra_groups import refusal
from verl_twgrpo.training.modes import is_ours, verls_mode

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
    if not is_ours(config) and (weighted or mode != "sync"):
        raise ValueError(
            f"trainer.v1.trainer_mode={mode}: this trainer computes no token weights; leave the mode that "
            "algorithm=... sets, or choose colocate_async or separate_async"
        )


@check()
def check_entry_point(config: DictConfig) -> None:
    for key, name in OTHER_ENTRY_POINTS.items():
        if OmegaConf.select(config, key) is not None:
            raise ValueError(refusal(f"{key} beside algorithm.tw_grpo", name))


def check_before_ray(main_ppo: ModuleType) -> None:
    """Let verl's ``run_ppo`` look at the entry point: those others go through it, one past ``validate_config``."""
    stock = main_ppo.run_ppo

    @wraps(stock)
    def run_ppo(config: DictConfig, *args: Any, **kwargs: Any) -> Any:
        if OmegaConf.select(config, "algorithm.tw_grpo") is not None:
            try:
                check_entry_point(config)
            except ValueError as error:
                raise SystemExit(f"verl-twgrpo: {error}") from error
        return stock(config, *args, **kwargs)

    vars(main_ppo)["run_ppo"] = run_ppo


@check()
def check_hybrid_engine(config: DictConfig) -> None:
    if config.actor_rollout_ref.get("hybrid_engine", True):
        return
    reason = "its trainer keeps actor and rollout on the same devices and does not look at it"
    if verls_mode(config) == "separate_async":
        reason = "verl 0.9.1 fails there before the first step (trainer_separate_async.py: logger.info(flush=True))"
    raise ValueError(f"actor_rollout_ref.hybrid_engine=False: {reason}; leave it True")


@check()
def check_parameter_sync_step(config: DictConfig) -> None:
    mode = verls_mode(config)
    step = OmegaConf.select(config, f"trainer.v1.{mode}.parameter_sync_step", default=1)
    if mode != "separate_async" and step != 1:
        raise ValueError(
            f"trainer.v1.{mode}.parameter_sync_step={step}: this trainer hands parameters over after every step; leave "
            "it out"
        )


@check(runs="training")
def check_separate_async(config: DictConfig) -> None:
    """What verl's trainer asserts in a worker (verl/trainer/ppo/v1/trainer_separate_async.py)."""
    if verls_mode(config) != "separate_async":
        return
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    steps = config.trainer.v1.separate_async.parameter_sync_step
    if config.data.train_batch_size != steps * actor.ppo_mini_batch_size:
        raise ValueError(
            f"data.train_batch_size={config.data.train_batch_size}: separate_async needs "
            f"trainer.v1.separate_async.parameter_sync_step={steps} times "
            f"actor_rollout_ref.actor.ppo_mini_batch_size={actor.ppo_mini_batch_size}; set it to "
            f"{steps * actor.ppo_mini_batch_size}"
        )
    for name in ("nnodes", "n_gpus_per_node"):
        if rollout[name] < 1:
            raise ValueError(
                f"actor_rollout_ref.rollout.{name}={rollout[name]}: separate_async rolls out on GPUs of its own; say "
                "how many with actor_rollout_ref.rollout.nnodes and n_gpus_per_node"
            )
    backend = rollout.checkpoint_engine.backend
    if backend == "naive":
        raise ValueError(
            f"actor_rollout_ref.rollout.checkpoint_engine.backend={backend}: it hands parameters over on the same GPU "
            "only; separate_async needs another one, as nccl"
        )


@check()
def check_validation_only(config: DictConfig) -> None:
    if config.trainer.val_only and not config.trainer.val_before_train:
        raise ValueError("trainer.val_only=True: verl heeds it only with trainer.val_before_train=True, else it trains")
