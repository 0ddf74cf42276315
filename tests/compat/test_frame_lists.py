"""A video that is given as a list of frames tells its rate, as RLHFDataset reads it with qwen-vl-utils."""

import numpy as np
import pytest
import verl  # noqa: F401 - loads the plugin
from PIL import Image
from qwen_vl_utils import process_vision_info, vision_process

from verl_twgrpo.video.rate import sampled_rate, say_default_rate, timestamps


def read(video):
    """Frames and metadata as verl's RLHFDataset reads a video of a row."""
    messages = [{"role": "user", "content": [{"type": "video", "min_pixels": 784, "max_pixels": 3136, **video}]}]
    _, (found,) = process_vision_info(messages, return_video_metadata=True)
    return found


@pytest.fixture
def frame_files(tmp_path):
    paths = []
    for k in range(6):
        paths.append(str(tmp_path / f"{k}.png"))
        Image.fromarray(np.full((56, 56, 3), 20 * k, np.uint8)).save(paths[-1])
    return paths


def test_a_list_of_frames_that_says_its_rate(frame_files):
    _, metadata = read({"video": frame_files, "sample_fps": 1.5})
    assert sampled_rate(metadata) == 1.5


def test_a_list_of_frames_taken_from_a_faster_file(frame_files):
    """qwen-vl-utils alone numbers the six frames by the file's rate: over in 0.2 s, which Qwen3-VL's prompt says."""
    _, metadata = read({"video": frame_files, "sample_fps": 1.5, "raw_fps": 30.0})
    assert sampled_rate(metadata) == 1.5
    assert timestamps(metadata) == pytest.approx([1 / 3, 5 / 3, 3.0])


def test_a_list_of_frames_that_does_not_say_its_rate_is_said_once(frame_files, caplog):
    say_default_rate.cache_clear()
    for _ in range(3):
        _, metadata = read({"video": frame_files})
    assert sampled_rate(metadata) == 2.0
    assert sum("without a rate" in record.message for record in caplog.records) == 1


@pytest.mark.upstream_bug
def test_qwen_vl_utils_numbers_the_frames_by_the_files_rate(frame_files):
    stock = vision_process.fetch_video.__wrapped__
    _, metadata = stock({"video": frame_files, "sample_fps": 1.5, "raw_fps": 30.0}, return_video_metadata=True)
    assert timestamps(metadata)[-1] < 0.2  # of six frames that span four seconds
