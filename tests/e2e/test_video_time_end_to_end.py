"""Videos of different lengths and rates in one batch through verl and vLLM: rollout and actor are the same policy."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from verl_twgrpo.data.parquet import read_rows, write_rows

pytestmark = pytest.mark.e2e

SIZE = 64


def write_video(path: Path, seconds: float) -> str:
    """Noise that fades through the colours, 25 frames per second."""
    noise = np.random.default_rng(0).integers(0, 128, (SIZE, SIZE, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=25, options={"preset": "ultrafast", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        total = round(seconds * 25)
        for k in range(total):
            image = (noise + np.array([k, total - k, total / 2]) * 127 / total).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


@pytest.fixture(scope="module")
def batch(demo, tmp_path_factory) -> Path:
    """Four questions: a short and a long video, of 16 and 32 frames, the last with two videos."""
    folder = tmp_path_factory.mktemp("videos")
    short, long = (write_video(folder / f"{seconds}.mp4", seconds) for seconds in (5.12, 40.0))
    asked = [[(short, 16)], [(long, 16)], [(long, 32)], [(short, 32), (long, 16)]]
    rows = read_rows(demo / "data" / "train.parquet")[: len(asked)]
    for row, videos in zip(rows, asked, strict=True):
        limits = {"min_pixels": SIZE * SIZE, "max_pixels": SIZE * SIZE, "digest": ""}
        row["videos"] = [{"video": path, "nframes": frames, **limits} for path, frames in videos]
        question = row["prompt"][-1]
        question["content"] = question["content"].replace("<video>", "<video>" * len(videos))
    write_rows(rows, folder / "four.parquet")
    return folder / "four.parquet"


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl", "qwen2_vl"])
def test_rollout_and_actor_are_the_same_policy(kind, video_models, batch, start):
    run = start(
        f"actor_rollout_ref.model.path={video_models[kind]}",
        f"data.train_files={batch}", f"data.val_files={batch}",
        "data.max_prompt_length=1280", "data.max_response_length=24", "data.shuffle=False",
        "actor_rollout_ref.rollout.max_model_len=1312", "actor_rollout_ref.rollout.max_num_batched_tokens=2048",
        "actor_rollout_ref.rollout.n=2", "actor_rollout_ref.rollout.max_num_seqs=8",
        "trainer.total_training_steps=1",
        environment={"VERL_TWGRPO_VIDEO_CHECK": "1", "XDG_CACHE_HOME": str(batch.parent)},
    )  # fmt: skip
    assert run.wait() == 0, run.tail()
    assert len(run.dump(1)) == 8
    assert list(batch.parent.glob("verl_twgrpo/video_agreement/*")), "compared before the start"
    assert run.metrics(1)["training/rollout_probs_diff_max"] < 5e-3
