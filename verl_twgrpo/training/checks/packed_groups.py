"""``algorithm.packed_groups``: what cannot be packed is an error under true and a note under auto."""

from __future__ import annotations

import os
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_twgrpo.training.engines.packable import why_not_model
from verl_twgrpo.training.modes import is_ours
from verl_twgrpo.training.settings import packed_groups_setting

from .registry import check
from .sequence_parallel import KEYS


@check(runs="training")
def check_packed_groups(config: DictConfig) -> list[str]:
    setting = packed_groups_setting(config.algorithm)
    reason = None if setting == "false" else why_unpacked(config)
    if reason and setting == "true":
        raise ValueError(f"algorithm.packed_groups=true: {reason}; set algorithm.packed_groups to auto or false")
    return [f"algorithm.packed_groups=auto: groups run unpacked: {reason}"] if reason else []


def why_unpacked(config: DictConfig) -> str | None:
    """What stands against packing groups in this run, as a clause; None where nothing does.

    Of a model that is not on this disk nothing is known here: the engine looks once more.
    """
    if not is_ours(config):
        return f"trainer.v1.trainer_mode={config.trainer.v1.trainer_mode} does not keep groups together"
    if OmegaConf.select(config, "actor_rollout_ref.actor.fsdp_config.pad_to_length"):
        return "actor_rollout_ref.actor.fsdp_config.pad_to_length=True wants rows of one length"
    for key in KEYS[:2]:
        if OmegaConf.select(config, key, default=1) > 1:
            return f"{key} > 1 cuts a row over ranks"
    model = _model_config(config.actor_rollout_ref.model.path)
    against = None if model is None else why_not_model(model)
    return against and f"actor_rollout_ref.model.path={config.actor_rollout_ref.model.path}: {against}"


def _model_config(path: str | None) -> Any:
    """The checkpoint's configuration; None where it is not a folder here, or transformers alone cannot read it."""
    from transformers import AutoConfig

    folder = os.path.expanduser(path or "")
    if not os.path.isfile(os.path.join(folder, "config.json")):
        return None
    try:
        return AutoConfig.from_pretrained(folder)
    except (ValueError, KeyError, OSError):
        return None
