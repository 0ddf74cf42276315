"""LoRA: adapters where neither the weights nor the rollout can take them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from .registry import check

HEAD = "lm_head"
TARGETS = ("actor_rollout_ref.model.target_modules", "actor_rollout_ref.model.lora.target_modules")


@check(runs="weighted")
def check_head(config: DictConfig) -> None:
    if not has_adapters(config):
        return
    for key in TARGETS:
        if _names_head(OmegaConf.select(config, key) or ()):
            raise ValueError(
                f"{key}: it puts an adapter on {HEAD}, from whose weight alone the token weights come; leave {HEAD} out"
            )


@check()
def check_adapters_on_cpu(config: DictConfig) -> None:
    merged = OmegaConf.select(config, "actor_rollout_ref.model.lora.merge", default=False)
    if config.trainer.device == "cpu" and has_adapters(config) and not merged:
        raise ValueError(
            "actor_rollout_ref.model.lora.merge=False: vLLM on the CPU takes no adapters from verl; set it to True"
        )


def has_adapters(config: DictConfig) -> bool:
    """Whether the actor is trained with LoRA."""
    model = config.actor_rollout_ref.model
    return model.lora_rank > 0 or (OmegaConf.select(model, "lora.rank") or 0) > 0


def _names_head(targets: str | Sequence[str]) -> bool:
    """As PEFT reads them: a text is a pattern for the whole name (or "all-linear", without the head)."""
    if isinstance(targets, str):
        return targets != "all-linear" and re.fullmatch(targets, HEAD) is not None
    return any(target.rsplit(".", 1)[-1] == HEAD for target in targets)
