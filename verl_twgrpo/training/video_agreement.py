"""Whether rollout and actor see a video alike, found out before a run: prompt, grids, positions and time, no weights.

A synthetic prompt goes through what verl's agent loop does for the actor, and through vLLM's processor as verl's server
calls it, both with the workarounds of compat/. What disagrees would train another policy than the one that answers.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from verl_twgrpo.compat.timestamped_prompts import one_placeholder_each
from verl_twgrpo.video.rate import seconds_per_grid, time_coordinates

Video = tuple[torch.Tensor, dict[str, Any]]


@dataclass
class Seen:
    """A prompt as one side sees it: T tokens, their positions (int64 [3, T]; [1, T] without M-RoPE), video grids.

    A grid is patches along time, height and width; ``merge`` of them along height and width make a token.
    """

    prompt_ids: list[int]
    positions: torch.Tensor
    video_grids: list[list[int]] = field(default_factory=list)
    merge: int = 2

    def time_of_videos(self, video_token: int) -> list[list[int]]:
        """Time coordinate of every temporal grid of each video, from the video's first."""
        times = self.positions[0, torch.tensor(self.prompt_ids) == video_token].tolist()
        found, first = [], 0
        for t, h, w in self.video_grids:
            size = h * w // self.merge**2
            of_video = times[first : first + t * size : size]
            found.append([time - of_video[0] for time in of_video])
            first += t * size
        return found


class ActorSide:
    """What verl's agent loop makes of a prompt for the trainer (verl/experimental/agent_loop/agent_loop.py)."""

    def __init__(self, model: str) -> None:
        from transformers import AutoConfig
        from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
        from verl.utils import hf_processor, hf_tokenizer
        from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

        self.processor = hf_processor(model)
        if self.processor is None:
            raise ValueError("verl 0.9.1 binds no processor for it")
        worker = object.__new__(AgentLoopWorker)  # no servers, no queue: its input side only
        worker.processor, worker.tokenizer, worker.mm_processor_kwargs = self.processor, hf_tokenizer(model), {}
        self._worker = worker
        self._builder = create_continuous_token_builder(
            worker.tokenizer, hf_model_type=AutoConfig.from_pretrained(model).model_type, processor=self.processor
        )

    def see(self, messages: list[dict], videos: Sequence[Video] | None = None, images: Sequence | None = None) -> Seen:
        """The prompt of ``messages`` with its pictures."""
        ids = self._builder.build_initial_tokens(messages, images=images, videos=videos)
        ids_T = torch.tensor(ids)
        data = {"videos": videos, "images": images}
        output = SimpleNamespace(multi_modal_data=data, mm_processor_kwargs=None)
        inputs = self._worker._compute_multi_modal_inputs(output, ids_T)
        grids = inputs.get("video_grid_thw")
        positions = self._worker._compute_position_ids(ids_T[None], torch.ones_like(ids_T)[None], inputs)[0]
        positions = positions[1:] if positions.dim() == 2 else positions[None]
        return Seen(ids, positions, [] if grids is None else grids.tolist())


class RolloutSide:
    """What vLLM makes of the request that verl's server sends it: its processor and its count, without an engine."""

    def __init__(self, model: str, processor: Any) -> None:
        import verl  # noqa: F401 - the plugin, before vLLM
        from vllm.config import ModelConfig
        from vllm.model_executor.model_loader import get_model_cls
        from vllm.multimodal import MULTIMODAL_REGISTRY

        self._hf_processor = processor
        config = ModelConfig(model=model, limit_mm_per_prompt={"image": 8, "video": 8})
        self._config = config.hf_config
        self.dtype = config.dtype  # to which vLLM rounds what a processor makes
        self._model = get_model_cls(config)
        self._processor = MULTIMODAL_REGISTRY.create_processor(config)

    def see(self, prompt_ids: list[int], videos: Sequence[Video] | None = None, images: Sequence | None = None) -> Seen:
        """The actor's ``prompt_ids`` with their pictures, as they come back out of vLLM's processor."""
        from verl.workers.rollout.utils import qwen2_5_vl_dedup_image_tokens

        ids = one_placeholder_each(list(prompt_ids), self._hf_processor, videos or ())
        ids = qwen2_5_vl_dedup_image_tokens(ids, self._hf_processor)
        data = {"video": videos, "image": images}
        items = self._processor.info.parse_mm_data({kind: given for kind, given in data.items() if given})
        made = self._processor(ids, items)
        features = [
            SimpleNamespace(modality=kind, data=item, mm_position=place)
            for kind, places in made["mm_placeholders"].items()
            for item, place in zip(made["mm_kwargs"][kind], places, strict=True)
        ]
        tokens = list(made["prompt_token_ids"])
        if not hasattr(self._model, "get_mrope_input_positions"):
            return Seen(tokens, torch.arange(len(tokens))[None])
        model = object.__new__(self._model)
        model.config = self._config
        positions, _ = model.get_mrope_input_positions(tokens, features)
        grids = [feature.data["video_grid_thw"].data.tolist() for feature in features if feature.modality == "video"]
        return Seen(tokens, positions, grids)


def disagreements(model: str) -> list[str]:
    """What rollout and actor would see differently of two videos, 5.12 s and 40 s, and the text behind them.

    Empty if nothing. ``model`` is a folder or hub name. Takes the time of importing vLLM.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    actor = ActorSide(model)
    rollout = RolloutSide(model, actor.processor)
    videos = [synthetic(5.12, 16), synthetic(40.0, 32)]
    content = [{"type": "video"}, {"type": "text", "text": "one"}, {"type": "video"}, {"type": "text", "text": "two?"}]
    messages = [{"role": "user", "content": content}]
    ours = actor.see(messages, videos)
    theirs = rollout.see(ours.prompt_ids, videos)
    found = differences(ours, theirs)
    return found or wrong_time(ours, actor.processor, videos)


def synthetic(seconds: float, frames: int, size: int = 64) -> Video:
    """``frames`` frames of noise, said to be spread over ``seconds`` of a file of 25 frames per second."""
    total = round(seconds * 25)
    indices = torch.linspace(0, total - 1, frames).round().long().tolist()
    noise = torch.rand(frames, 3, size, size, generator=torch.Generator().manual_seed(frames))
    return noise * 255, {"fps": 25.0, "frames_indices": indices, "total_num_frames": total}


def differences(actor: Seen, rollout: Seen) -> list[str]:
    """What two sides see differently, with the first place of it."""
    if actor.prompt_ids != rollout.prompt_ids:
        same = [a == b for a, b in zip(actor.prompt_ids, rollout.prompt_ids, strict=False)]
        return [
            f"prompt: {len(actor.prompt_ids)} tokens in the actor, {len(rollout.prompt_ids)} in vLLM, different from "
            f"token {[*same, False].index(False)} on"
        ]
    if actor.video_grids != rollout.video_grids:
        return [f"grids of the videos: {actor.video_grids} in the actor, {rollout.video_grids} in vLLM"]
    if not torch.equal(actor.positions, rollout.positions):
        place = int((actor.positions != rollout.positions).any(0).nonzero()[0])
        pair = actor.positions[:, place].tolist(), rollout.positions[:, place].tolist()
        return [f"positions: from token {place} on, {pair[0]} in the actor, {pair[1]} in vLLM"]
    return []


def wrong_time(seen: Seen, processor: Any, videos: Sequence[Video]) -> list[str]:
    """Videos whose time coordinates are not those of their rate, for models that tell time by them."""
    vision = getattr(processor.config, "vision_config", None)
    scale = getattr(vision, "tokens_per_second", None)
    if scale is None:
        return []
    found = []
    counted = seen.time_of_videos(processor.video_token_id)
    for number, (times, (_, metadata)) in enumerate(zip(counted, videos, strict=True)):
        step = seconds_per_grid(metadata, processor.video_processor.temporal_patch_size)
        expected = time_coordinates(len(times), step, scale)
        if times != expected:
            found.append(f"time of video {number}: {times}, for its rate it would be {expected}")
    return found


if __name__ == "__main__":
    print(json.dumps(disagreements(sys.argv[1])))
