"""The frame cache: frames for every row, sampled as the row says."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from verl_twgrpo.video.cache import FrameCache

from .parquet_files import columns, tables
from .registry import check


@check(reads_files=True)
def check_frame_cache(config: DictConfig) -> None:
    if OmegaConf.select(config, "data.custom_cls.name") != "CachedFramesDataset":
        return
    folder = config.data.get("frame_cache")
    key = f"data.frame_cache={folder}"
    if not folder or not Path(os.path.expanduser(folder)).is_dir():
        raise ValueError(f"{key}: no such folder; prepare it with `verl-twgrpo data frames --cache FOLDER`")
    cache = FrameCache(os.path.expanduser(folder), config.data.image_patch_size)
    for what, path in tables(config):
        absent = []
        for number, row in enumerate(columns(what, path, [config.data.video_key])):
            for video in row[config.data.video_key] or ():
                try:
                    if video not in cache:
                        absent.append(number)
                except (KeyError, TypeError, AttributeError):
                    raise ValueError(
                        f"{what}: row {number}: its video has no nframes, min_pixels and max_pixels, by which the "
                        "frame cache finds frames; convert the data with `verl-twgrpo data convert`"
                    ) from None
        if absent:
            raise ValueError(
                f"{key}: no frames for {len(set(absent))} rows of {what}, the first of them row {absent[0]}; prepare "
                f"them with `verl-twgrpo data frames {path} --cache {folder} --patch-size "
                f"{config.data.image_patch_size}`"
            )
