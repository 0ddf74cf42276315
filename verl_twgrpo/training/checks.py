"""What would go wrong in a run, said on the driver before Ray starts: one sentence, the key, what to do."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import pyarrow.parquet as pq
from omegaconf import DictConfig, ListConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic

from verl_twgrpo.rewards.manager import check_settings

from .settings import TWGRPOConfig

STRATEGIES = ("fsdp", "fsdp2")
# the name in seeded_rollout.py, which is not imported here: it pulls in verl's agent loops
SEEDED_LOOP = "seeded_single_turn_agent"


def check_training_config(config: DictConfig) -> None:
    """Check a composed configuration that has ``algorithm.tw_grpo``; one without it is none of our business.

    Raises:
        ValueError: with the key's name, and what to do.
        FileNotFoundError: for a checkpoint, a data file or a video that is not there.
    """
    if OmegaConf.select(config, "algorithm.tw_grpo") is None:
        return
    settings = read_settings(config.algorithm.tw_grpo)
    _check_trainer(config, settings)
    _check_rollout_on_cpu(config)
    if settings.weighted:
        _check_weights_pass(config, settings)
    check_settings(config)
    check_checkpoint(config.actor_rollout_ref.model.path)
    check_data_files(config.data)


def read_settings(node: DictConfig) -> TWGRPOConfig:
    """The settings in ``algorithm.tw_grpo``. Raises ``ValueError`` naming an unknown key or a bad value."""
    values = OmegaConf.to_container(node, resolve=True)
    values.pop("_target_", None)
    known = [field.name for field in fields(TWGRPOConfig) if not field.name.startswith("_")]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"algorithm.tw_grpo.{unknown[0]}: there is no such setting; choose from {', '.join(known)}")
    return TWGRPOConfig(**values)


def _check_trainer(config: DictConfig, settings: TWGRPOConfig) -> None:
    mode = config.trainer.v1.trainer_mode
    if not config.trainer.use_v1:
        raise ValueError("trainer.use_v1=False: TW-GRPO runs on verl's V1 trainer only; leave it True")
    if mode != "tw_grpo" and (settings.weighted or mode != "sync"):
        raise ValueError(
            f"trainer.v1.trainer_mode={mode}: token weights need the synchronous trainer tw_grpo; verl's asynchronous "
            "modes are not supported, leave the mode that algorithm=... sets"
        )
    n = config.actor_rollout_ref.rollout.n
    if n < 2:
        raise ValueError(f"actor_rollout_ref.rollout.n={n}: one response is no group; set it to 2 or more (paper: 8)")
    if need_critic(config):
        raise ValueError(
            f"algorithm.adv_estimator={config.algorithm.adv_estimator}: TW-GRPO has no critic; use tw_grpo (or another "
            "estimator without one) and leave critic.enable unset"
        )
    strategy = config.actor_rollout_ref.actor.strategy
    if strategy not in STRATEGIES:
        raise ValueError(f"actor_rollout_ref.actor.strategy={strategy}: supported are {' and '.join(STRATEGIES)}")


def _check_rollout_on_cpu(config: DictConfig) -> None:
    """What vLLM on the CPU cannot do, and says in a worker's log only."""
    rollout = config.actor_rollout_ref.rollout
    if config.trainer.device != "cpu":
        return
    # torch's CPU generator cannot be wound back, which vLLM does after each part of a prompt
    if rollout.agent.default_agent_loop == SEEDED_LOOP and rollout.enable_chunked_prefill:
        raise ValueError(
            f"actor_rollout_ref.rollout.agent.default_agent_loop={SEEDED_LOOP}: vLLM on the CPU cannot seed a prompt "
            "that it reads in parts; set actor_rollout_ref.rollout.enable_chunked_prefill=False"
        )


def _check_weights_pass(config: DictConfig, settings: TWGRPOConfig) -> None:
    actor, model = config.actor_rollout_ref.actor, config.actor_rollout_ref.model
    if model.get("use_fused_kernels", False):
        raise ValueError(
            "actor_rollout_ref.model.use_fused_kernels=True: they bypass the head from which the weights come; "
            "set it to False (the old-log-prob step has its own fused pass)"
        )
    if actor.get("ulysses_sequence_parallel_size", 1) > 1:
        raise ValueError(
            "actor_rollout_ref.actor.ulysses_sequence_parallel_size > 1: it cuts a response over ranks; set it to 1"
        )
    if OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode"):
        raise ValueError(
            "algorithm.rollout_correction.bypass_mode=True: the old-log-prob step, where the weights come from, would "
            "not run; set it to False"
        )
    if settings.placement == "eq6" and actor.policy_loss.loss_mode != "tw_grpo":
        raise ValueError(
            f"actor_rollout_ref.actor.policy_loss.loss_mode={actor.policy_loss.loss_mode}: placement eq6 is a property "
            "of the loss tw_grpo; set loss_mode=tw_grpo or algorithm.tw_grpo.placement=outside"
        )
    ranks = config.trainer.n_gpus_per_node * config.trainer.nnodes
    if config.data.train_batch_size % ranks:
        raise ValueError(
            f"data.train_batch_size={config.data.train_batch_size}: {ranks} data-parallel ranks "
            "(trainer.n_gpus_per_node * trainer.nnodes) cannot share it in whole groups; make it a multiple"
        )


def check_checkpoint(path: str | None) -> None:
    """Raises ``FileNotFoundError`` if a local checkpoint is not there or is no checkpoint; hub names are left alone."""
    if not path:
        raise FileNotFoundError("actor_rollout_ref.model.path is not set: give a checkpoint folder or a hub name")
    folder = Path(os.path.expanduser(path))
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"actor_rollout_ref.model.path={path}: no config.json in it; give a folder that save_pretrained wrote"
            )
    elif "://" not in path and not _looks_like_hub_name(path):
        raise FileNotFoundError(f"actor_rollout_ref.model.path={path}: no such folder; give a checkpoint or a hub name")


def _looks_like_hub_name(path: str) -> bool:
    return path.count("/") == 1 and not path.startswith((".", "~", "/")) and not Path(path).parent.is_dir()


def check_data_files(data: DictConfig) -> None:
    """Check the parquet files of ``data.train_files`` and ``data.val_files``: columns, and that every video is there.

    Raises:
        FileNotFoundError: naming key, file, row and video; or a frame cache that is not there.
        ValueError: for a missing column, or rows without a video.
    """
    if OmegaConf.select(data, "custom_cls.name") == "CachedFramesDataset":
        cache = data.get("frame_cache")
        if not cache or not Path(os.path.expanduser(cache)).is_dir():
            raise FileNotFoundError(
                f"data.frame_cache={cache}: no such folder; prepare it with `verl-twgrpo data frames --cache FOLDER`"
            )
    for key in ("train_files", "val_files"):
        files = data.get(key)
        if files is None:
            raise ValueError(f"data.{key} is not set: give a parquet file that `verl-twgrpo data` wrote")
        for file in files if isinstance(files, list | ListConfig) else [files]:
            if "://" in str(file):
                continue  # remote: verl copies it itself
            _check_parquet(f"data.{key}={file}", Path(os.path.expanduser(str(file))), data)


def _check_parquet(what: str, path: Path, data: DictConfig) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{what}: no such file; make it with `verl-twgrpo data convert`")
    if path.suffix != ".parquet":
        return
    names = pq.read_schema(path).names
    for column in (data.prompt_key, "data_source", "reward_model", data.video_key):
        if column not in names:
            raise ValueError(f"{what}: column {column!r} is missing (it has {', '.join(names)})")
    rows = pq.read_table(path, columns=[data.video_key]).column(0).to_pylist()
    if not rows:
        raise ValueError(f"{what}: it has no rows")
    for number, row in enumerate(rows):
        _check_videos(f"{what}: row {number}", row)


def _check_videos(where: str, videos: Iterable[dict | str] | None) -> None:
    if not videos:
        raise ValueError(f"{where}: no video; TW-GRPO trains on video questions")
    for video in videos:
        source = video.get("video") if isinstance(video, dict) else video
        if isinstance(source, str):
            source = source.removeprefix("file://")
            if "://" not in source and not Path(source).is_file():
                raise FileNotFoundError(
                    f"{where}: video {source} is not there; `verl-twgrpo data check` lists them all"
                )
