"""A video's metadata become the seconds and coordinates that its model was trained with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.video_utils import VideoMetadata

from verl_twgrpo.video.rate import (
    DEFAULT_RATE,
    sampled_rate,
    seconds_per_grid,
    time_coordinates,
    timestamps,
    with_rate,
)

FPS = 25.0


def metadata_of(seconds: float, frames: int) -> dict:
    """What qwen-vl-utils says of ``frames`` frames, spread over a file of 25 frames per second."""
    total = round(seconds * FPS)
    return {
        "fps": FPS,
        "frames_indices": [round(k * (total - 1) / (frames - 1)) for k in range(frames)],
        "total_num_frames": total,
        "video_backend": "torchcodec",
    }


# int(grid * 2 frames / (16 frames / duration) * 2 tokens per second), worked out by hand
TABLE = {
    (5.12, 16): [0, 1, 2, 3, 5, 6, 7, 8],
    (40.0, 16): [0, 10, 20, 30, 40, 50, 60, 70],
    (5.12, 32): [0, 0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8, 8, 9],
    (8.0, 16): [0, 2, 4, 6, 8, 10, 12, 14],
    (3.0, 8): [0, 1, 3, 4],
}


@pytest.mark.parametrize(("seconds", "frames"), TABLE)
def test_time_coordinates_are_those_of_the_released_models(seconds, frames):
    step = seconds_per_grid(metadata_of(seconds, frames))
    assert time_coordinates(frames // 2, step, tokens_per_second=2) == TABLE[seconds, frames]


@given(st.integers(1, 200), st.integers(1, 64), st.floats(0.5, 240))
def test_the_rate_is_transformers(extra, frames, fps):
    metadata = {"fps": fps, "frames_indices": list(range(frames)), "total_num_frames": frames + extra}
    assert sampled_rate(metadata) == pytest.approx(VideoMetadata(**metadata).sampled_fps, rel=1e-12)


@pytest.mark.parametrize("missing", ["fps", "frames_indices", "total_num_frames"])
def test_metadata_without_a_rate_get_the_default(missing):
    metadata = {**metadata_of(5.12, 16), missing: None}
    assert sampled_rate(metadata) is None
    assert seconds_per_grid(metadata) == 2 / DEFAULT_RATE
    told = with_rate(metadata, 16)
    assert sampled_rate(told) == DEFAULT_RATE
    assert told["video_backend"] == "torchcodec"
    assert sampled_rate(with_rate(None, 16)) == DEFAULT_RATE


def test_a_known_rate_is_kept():
    assert with_rate(metadata_of(5.12, 16), 16) == metadata_of(5.12, 16)


def test_timestamps_are_the_means_of_a_grids_frames():
    assert timestamps({"fps": 2.0, "frames_indices": [0, 3, 8]}) == [0.75, 4.0]
