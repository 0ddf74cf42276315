"""The input side on prepared frames: the same tensors as verl's, decoded never and prepared once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from omegaconf import OmegaConf
from qwen_vl_utils import vision_process
from transformers import Qwen2VLVideoProcessor
from verl.utils.dataset.rl_dataset import RLHFDataset

from verl_twgrpo.video.cache import FrameCache
from verl_twgrpo.video.dataset import CachedFramesDataset
from verl_twgrpo.video.decode import prepare_video

ROLLOUTS = 8


@pytest.fixture
def video(make_video):
    return {
        "video": str(make_video("pushed.mp4", frames=40, width=320, height=240)),
        "nframes": 4, "min_pixels": 4 * 28 * 28, "max_pixels": 16 * 28 * 28, "digest": "",
    }  # fmt: skip


@pytest.fixture
def messages(video):
    return [{"role": "user", "content": [{"type": "video", **video}, {"type": "text", "text": "What happens?"}]}]


@pytest.fixture
def config(video, tmp_path):
    FrameCache(tmp_path).put(video, *prepare_video(video), notes=[])
    return OmegaConf.create({"frame_cache": str(tmp_path)})


def rollout(dataset, processor, messages, config):
    """The input side of one rollout: the frames, then the processor twice, as verl's agent loop has it."""
    _, videos, _ = asyncio.run(dataset.process_multi_modal_info(messages, image_patch_size=14, config=config))
    frames, metadata = zip(*videos, strict=True)
    for _ in range(2):
        made = processor(
            videos=list(frames), video_metadata=list(metadata), do_sample_frames=False, return_tensors="pt"
        )
    return made


def test_the_model_gets_what_verl_gives_it(messages, config):
    processor = Qwen2VLVideoProcessor()
    verls = rollout(RLHFDataset, processor, messages, config)
    ours = rollout(CachedFramesDataset, processor, messages, config)
    assert verls.keys() == ours.keys()
    assert torch.equal(verls["video_grid_thw"], ours["video_grid_thw"])
    torch.testing.assert_close(ours["pixel_values_videos"], verls["pixel_values_videos"], atol=0, rtol=0)


def test_a_group_decodes_nothing_and_prepares_once(messages, config, monkeypatch):
    counts = {"decoded": 0, "prepared": 0}
    prepare = Qwen2VLVideoProcessor._preprocess

    def counted(self, *args, **kwargs):
        counts["prepared"] += 1
        return prepare(self, *args, **kwargs)

    def decode(*args, **kwargs):
        counts["decoded"] += 1
        raise AssertionError("decoded")

    monkeypatch.setattr(Qwen2VLVideoProcessor, "_preprocess", counted)
    monkeypatch.setattr(vision_process, "fetch_video", decode)
    processor = Qwen2VLVideoProcessor()
    with ThreadPoolExecutor(ROLLOUTS) as pool:  # at once, as an agent loop runs them
        made = list(pool.map(lambda _: rollout(CachedFramesDataset, processor, messages, config), range(ROLLOUTS)))
    assert counts == {"decoded": 0, "prepared": 1}
    made[0].pop("pixel_values_videos")
    assert "pixel_values_videos" in made[1]
    assert "pixel_values_videos" in rollout(CachedFramesDataset, processor, messages, config)


def test_other_settings_are_prepared_anew(messages, config):
    processor = Qwen2VLVideoProcessor()
    _, ((frames, _),), _ = asyncio.run(CachedFramesDataset.process_multi_modal_info(messages, 14, config))
    raw = processor(videos=[frames], do_rescale=False, do_sample_frames=False, return_tensors="pt")
    scaled = processor(videos=[frames], do_sample_frames=False, return_tensors="pt")
    assert not torch.equal(raw["pixel_values_videos"], scaled["pixel_values_videos"])


def test_another_processor_prepares_the_same_frames_for_itself(messages, config):
    """Settings of the processor are not in the call: two models in one process must not share what one made."""
    _, ((frames, _),), _ = asyncio.run(CachedFramesDataset.process_multi_modal_info(messages, 14, config))
    one, other = Qwen2VLVideoProcessor(), Qwen2VLVideoProcessor(image_mean=[0.0] * 3, image_std=[1.0] * 3)
    made = [
        processor(videos=[frames], do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]
        for processor in (one, other, one)
    ]
    assert not torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])
    apart = other(videos=[frames.clone()], do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]
    assert torch.equal(made[1], apart)


def test_a_text_only_prompt_has_no_video(config):
    messages = [{"role": "user", "content": "no picture"}]
    assert asyncio.run(CachedFramesDataset.process_multi_modal_info(messages, 14, config)) == (None, None, None)


def test_frames_that_were_not_prepared_are_named(messages, config):
    messages[0]["content"][0]["nframes"] = 6
    with pytest.raises(FileNotFoundError, match="pushed"):
        asyncio.run(CachedFramesDataset.process_multi_modal_info(messages, 14, config))


def test_the_folder_must_be_set(messages):
    with pytest.raises(ValueError, match=r"data\.frame_cache is not set"):
        asyncio.run(CachedFramesDataset.process_multi_modal_info(messages, 14, OmegaConf.create({})))
