"""Ulysses sequence parallelism, by whichever of verl's keys it is asked for."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from .registry import check

# the second is the newer name of the first, and the engine reads that (verl/workers/config/actor.py)
KEYS = (
    "actor_rollout_ref.actor.ulysses_sequence_parallel_size",
    "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size",
    "actor_rollout_ref.ref.ulysses_sequence_parallel_size",
    "actor_rollout_ref.ref.fsdp_config.ulysses_sequence_parallel_size",
)


@check()
def check_sequence_parallel(config: DictConfig) -> None:
    """verl finds it in the worker (FSDPEngine, verl/workers/engine/fsdp/transformer_impl.py)."""
    for key in KEYS:
        size = OmegaConf.select(config, key, default=1)
        if size > 1 and not OmegaConf.select(config, "actor_rollout_ref.model.use_remove_padding", default=True):
            raise ValueError(
                f"{key}={size}: it cuts rows without padding; set actor_rollout_ref.model.use_remove_padding=True"
            )
