"""What vLLM on the CPU cannot do, and says in a worker's log only."""

from __future__ import annotations

from omegaconf import DictConfig

from ..settings import SEEDED_LOOP
from .registry import check


@check()
def check_seeded_rollouts(config: DictConfig) -> None:
    rollout = config.actor_rollout_ref.rollout
    if config.trainer.device != "cpu":
        return
    # torch's CPU generator cannot be wound back, which vLLM does after each part of a prompt
    if rollout.agent.default_agent_loop == SEEDED_LOOP and rollout.enable_chunked_prefill:
        raise ValueError(
            f"actor_rollout_ref.rollout.agent.default_agent_loop={SEEDED_LOOP}: vLLM on the CPU cannot seed a prompt "
            "that it reads in parts; set actor_rollout_ref.rollout.enable_chunked_prefill=False"
        )
