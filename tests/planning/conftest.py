"""A tiny checkpoint with its processor, and data whose videos are real."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from verl_twgrpo.data.parquet import FrameLimits, write_parquet
from verl_twgrpo.data.schema import Item

# as qwen-vl-utils resizes 96 x 64 pixels: 84 x 56, that is 3 x 2 tokens for two frames
WIDTH, HEIGHT, TOKENS_PER_PAIR = 96, 64, 6
LIMITS = FrameLimits(nframes=8, max_pixels=16 * 28 * 28)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    from verl_twgrpo.mini_clevrer.model.checkpoint import build_model, build_processor

    folder = tmp_path_factory.mktemp("checkpoint")
    processor = build_processor()
    build_model(processor, seed=0).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data_file(tmp_path_factory) -> Path:
    """Five questions about one video of 96 x 64 pixels, the third with a longer text."""
    folder = tmp_path_factory.mktemp("data")
    video = folder / "video.mp4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for k in range(12):
            picture = np.full((HEIGHT, WIDTH, 3), 20 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    items = [
        Item(str(k), "clevrer", "train", "What?" * (5 if k == 2 else 1), ("this", "that"), frozenset("A"), str(video))
        for k in range(5)
    ]
    return write_parquet(items, folder / "data.parquet", limits=LIMITS)


@pytest.fixture
def overrides(checkpoint, data_file, tmp_path) -> list[str]:
    """A run on the two: the main recipe on one GPU, with outputs in a folder of the test."""
    return [
        "recipe=qwen2_5_vl_7b_clevrer",
        f"actor_rollout_ref.model.path={checkpoint}",
        f"data.train_files={data_file}",
        f"data.val_files={data_file}",
        f"out_dir={tmp_path}",
        "trainer.n_gpus_per_node=1",
        # the tiny model takes 1024 tokens
        "data.max_prompt_length=256",
        "data.max_response_length=64",
        "actor_rollout_ref.rollout.max_model_len=320",
    ]
