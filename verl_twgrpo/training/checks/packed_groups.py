"""``algorithm.packed_groups``; under auto the engine itself says what it cannot pack, and runs it unpacked."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from verl_twgrpo.training.settings import packed_groups_setting

from .registry import check
from .sequence_parallel import KEYS


@check(runs="training")
def check_packed_groups(config: DictConfig) -> None:
    if packed_groups_setting(config.algorithm) != "true":
        return
    mode = config.trainer.v1.trainer_mode
    against = {
        f"trainer.v1.trainer_mode={mode} does not keep groups together": mode != "tw_grpo",
        "actor_rollout_ref.model.use_fused_kernels=True goes past the head": OmegaConf.select(
            config, "actor_rollout_ref.model.use_fused_kernels"
        ),
        "actor_rollout_ref.actor.fsdp_config.pad_to_length=True wants rows of one length": OmegaConf.select(
            config, "actor_rollout_ref.actor.fsdp_config.pad_to_length"
        ),
        **{f"{key} > 1 cuts a row over ranks": OmegaConf.select(config, key, default=1) > 1 for key in KEYS[:2]},
    }
    for reason, holds in against.items():
        if holds:
            raise ValueError(f"algorithm.packed_groups=true: {reason}; set algorithm.packed_groups to auto or false")
