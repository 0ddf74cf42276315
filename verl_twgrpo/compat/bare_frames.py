"""Frames that a dataset hands to verl without a rate get one, the same for rollout and actor.

verl passes what the dataset gives (verl/experimental/agent_loop/agent_loop.py, process_multi_modal_info): for bare
frames transformers assumes 24 per second, Qwen3-VL's processor in vLLM refuses them, and each may change its mind.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from verl_twgrpo.compat.workaround import Workaround
from verl_twgrpo.video.rate import sampled_rate, say_default_rate, with_rate


def give_rate(agent_loop: ModuleType) -> None:
    """Complete the metadata of the videos that verl's agent loops read."""
    stock = agent_loop.AgentLoopBase.process_multi_modal_info

    async def process_multi_modal_info(self: Any, messages: list[dict]) -> dict:
        data = await stock(self, messages)
        if data.get("videos"):
            data["videos"] = [rated(video) for video in data["videos"]]
        return data

    agent_loop.AgentLoopBase.process_multi_modal_info = process_multi_modal_info


def rated(video: Any) -> tuple[Any, dict[str, Any]]:
    """A video as verl's datasets give it, frames or (frames, metadata), as frames and metadata that tell the rate."""
    frames, metadata = video if isinstance(video, tuple) else (video, None)
    if sampled_rate(metadata) is None:
        say_default_rate()
    return frames, with_rate(metadata, len(frames))


WORKAROUND = Workaround(
    module="verl.experimental.agent_loop.agent_loop",
    apply=give_rate,
    because="hands frames without a rate to vLLM and transformers, which each assume another or refuse them",
    versions="verl==0.9.1",
)
