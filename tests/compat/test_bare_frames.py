"""Frames that a user's dataset class gives without a rate get the default one in verl's agent loop."""

import asyncio
from inspect import getclosurevars
from types import SimpleNamespace

import pytest
import torch
import verl  # noqa: F401 - loads the plugin
from transformers.video_utils import VideoMetadata
from verl.experimental.agent_loop.agent_loop import AgentLoopBase

from verl_twgrpo.video.rate import sampled_rate, say_default_rate


def agent_loop(video):
    """As much of verl's agent loop as reads the videos of a user's dataset class."""

    class Users:
        @classmethod
        async def process_multi_modal_info(cls, messages, image_patch_size, config):
            return None, [video], None

    return SimpleNamespace(processor=SimpleNamespace(), dataset_cls=Users, data_config=None)


@pytest.mark.parametrize("metadata", [None, {"fps": None, "frames_indices": None, "total_num_frames": 6}])
def test_they_are_two_per_second_and_it_is_said_once(metadata, caplog):
    say_default_rate.cache_clear()
    frames = torch.zeros(6, 3, 28, 28)
    for _ in range(2):
        loop = agent_loop(frames if metadata is None else (frames, metadata))
        data = asyncio.run(AgentLoopBase.process_multi_modal_info(loop, []))
    ((found, told),) = data["videos"]
    assert found is frames and sampled_rate(told) == 2.0
    assert sum("without a rate" in record.message for record in caplog.records) == 1


def test_transformers_own_metadata_are_kept(caplog):
    say_default_rate.cache_clear()
    known = VideoMetadata(fps=25.0, frames_indices=[0, 40, 80, 120], total_num_frames=160)
    data = asyncio.run(AgentLoopBase.process_multi_modal_info(agent_loop((torch.zeros(4, 3, 28, 28), known)), []))
    assert sampled_rate(data["videos"][0][1]) == 0.625
    assert not caplog.records


@pytest.mark.upstream_bug
def test_verl_hands_them_on_as_they_are():
    stock = getclosurevars(AgentLoopBase.process_multi_modal_info).nonlocals["stock"]
    frames = torch.zeros(6, 3, 28, 28)
    assert asyncio.run(stock(agent_loop(frames), []))["videos"] == [frames]
