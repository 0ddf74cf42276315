"""The inference engine, and the room that it has for a prompt and its response."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from .registry import check


@check()
def check_engine(config: DictConfig) -> None:
    name = OmegaConf.select(config, "actor_rollout_ref.rollout.name")  # mandatory in verl: None here if nobody set it
    if name != "vllm":
        raise ValueError(
            f"actor_rollout_ref.rollout.name={name}: supported is vllm; with another one nobody has seen rollout and "
            "actor agree on a video"
        )


@check()
def check_context(config: DictConfig) -> None:
    rollout = config.actor_rollout_ref.rollout
    needed, limit = rollout.prompt_length + rollout.response_length, rollout.max_model_len
    if limit is not None and limit < needed:
        raise ValueError(
            f"actor_rollout_ref.rollout.max_model_len={limit}: smaller than prompt {rollout.prompt_length} + response "
            f"{rollout.response_length} tokens, so that responses would be cut short; set it to {needed}"
        )
