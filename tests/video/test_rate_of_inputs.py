"""However a video comes into verl, its frames tell their true rate."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import verl  # noqa: F401 - loads the plugin
from PIL import Image
from qwen_vl_utils import process_vision_info
from verl.experimental.agent_loop.agent_loop import AgentLoopBase

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


@pytest.mark.parametrize(("sampling", "rate"), [({"nframes": 8}, 2.0), ({"fps": 3.0}, 3.0)])
def test_a_file_read_by_qwen_vl_utils(make_video, sampling, rate):
    path = make_video("a.mp4", frames=100)  # four seconds
    frames, metadata = read({"video": str(path), **sampling})
    assert sampled_rate(metadata) == pytest.approx(rate) and len(frames) == 4 * rate


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


@pytest.mark.parametrize("metadata", [None, {"fps": None, "frames_indices": None, "total_num_frames": 6}])
def test_bare_frames_of_a_users_dataset_get_the_default(metadata, caplog):
    say_default_rate.cache_clear()
    frames = torch.zeros(6, 3, 28, 28)

    class Users:
        @classmethod
        async def process_multi_modal_info(cls, messages, image_patch_size, config):
            return None, [frames if metadata is None else (frames, metadata)], None

    loop = SimpleNamespace(processor=SimpleNamespace(), dataset_cls=Users, data_config=None)
    data = asyncio.run(AgentLoopBase.process_multi_modal_info(loop, []))
    ((found, told),) = data["videos"]
    assert found is frames and sampled_rate(told) == 2.0
    assert sum("without a rate" in record.message for record in caplog.records) == 1
