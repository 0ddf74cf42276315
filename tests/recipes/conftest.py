"""Stand-ins for the checkpoint, the data, the videos and the frame cache that a recipe names."""

from __future__ import annotations

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from verl_twgrpo.data.parquet import read_rows, write_parquet
from verl_twgrpo.data.schema import Item
from verl_twgrpo.video.cache import FrameCache


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory):
    """Puts a checkpoint folder and a parquet file with a video in place of those that a configuration names."""
    folder = tmp_path_factory.mktemp("stand_ins")
    (folder / "config.json").write_text("{}")
    video = folder / "video.mp4"
    video.write_bytes(b"nobody looks into it")
    items = [Item(str(k), "clevrer", "train", "What?", ("this", "that"), frozenset("A"), str(video)) for k in range(3)]
    data = write_parquet(items, folder / "data.parquet")
    for row in read_rows(data):
        FrameCache(folder).put(row["videos"][0], torch.zeros(16, 3, 28, 28, dtype=torch.uint8), {}, [])

    def put(config: DictConfig) -> DictConfig:
        values = {"actor_rollout_ref.model.path": str(folder)}
        values |= {f"data.{key}": str(data) for key in ("train_files", "val_files")}
        if "frame_cache" in config.data:
            values["data.frame_cache"] = str(folder)
        for key, value in values.items():
            OmegaConf.update(config, key, value)
        return config

    return put
