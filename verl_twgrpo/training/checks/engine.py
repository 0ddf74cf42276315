"""The training engine: strategies and modules that the method has been made for."""

from __future__ import annotations

from omegaconf import DictConfig

from .registry import check

STRATEGIES = ("fsdp", "fsdp2")


@check()
def check_strategy(config: DictConfig) -> None:
    strategy = config.actor_rollout_ref.actor.strategy
    if strategy not in STRATEGIES:
        raise ValueError(f"actor_rollout_ref.actor.strategy={strategy}: supported are {' and '.join(STRATEGIES)}")
    if strategy == "fsdp" and config.trainer.device == "cpu":
        raise ValueError(
            "actor_rollout_ref.actor.strategy=fsdp: it does not run on the CPU (trainer.device=cpu); set it to fsdp2"
        )


@check(runs="training")
def check_frozen_vision(config: DictConfig) -> None:
    """FSDP1 makes one flat tensor of a module's parameters, which either has a gradient or not."""
    actor = config.actor_rollout_ref.actor
    flat = actor.strategy == "fsdp" and not actor.fsdp_config.use_orig_params
    if actor.get("freeze_vision_tower", False) and flat and config.actor_rollout_ref.model.lora_rank <= 0:
        raise ValueError(
            "actor_rollout_ref.actor.freeze_vision_tower=True: strategy fsdp cannot keep parameters with and without "
            "gradient in one shard; set actor_rollout_ref.actor.strategy=fsdp2, or "
            "actor_rollout_ref.actor.fsdp_config.use_orig_params=True"
        )
