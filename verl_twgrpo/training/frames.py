"""verl's input side on prepared frames: no rollout decodes a video, and the rollouts of a prompt share one preparation.

On stock verl every rollout decodes its video, and runs the processor over its frames twice (once to count the prompt's
tokens, once for the trainer's inputs; verl/experimental/agent_loop/agent_loop.py). Chosen by
``data.custom_cls.path=pkg://verl_twgrpo.training.frames data.custom_cls.name=CachedFramesDataset``, with
``+data.frame_cache=FOLDER`` as ``verl-twgrpo data frames`` filled it.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

import torch
from omegaconf import DictConfig
from verl.utils.dataset.rl_dataset import RLHFDataset

from verl_twgrpo.data.frame_cache import FrameCache

from .prepared_frames import hand_out


class CachedFramesDataset(RLHFDataset):
    """RLHFDataset whose videos come from a ``FrameCache``; images, if there are any, come as ever."""

    @classmethod
    async def process_vision_info(
        cls, messages: list[dict], image_patch_size: int, config: DictConfig
    ) -> tuple[list | None, list[tuple[torch.Tensor, dict[str, Any]]] | None]:
        """Images, and videos as (float frames [T, 3, height, width], metadata), the same objects for every rollout.

        Raises:
            ValueError: if ``data.frame_cache`` is not set.
            FileNotFoundError: if the frames of a video were not prepared.
        """
        elements = [e for message in messages if isinstance(message["content"], list) for e in message["content"]]
        videos = [element for element in elements if "video" in element]
        images = None
        if any("image" in element or "image_url" in element for element in elements):
            without = [
                {**message, "content": [e for e in message["content"] if "video" not in e]}
                for message in messages
                if isinstance(message["content"], list)
            ]
            images, _ = await super().process_vision_info(without, image_patch_size, config)
        if not videos:
            return images, None
        frames = frame_cache(config.get("frame_cache"), image_patch_size)
        # reading a file would hold up every other rollout of this worker
        return images, await asyncio.get_running_loop().run_in_executor(
            None, lambda: [hand_out(frames.get, v) for v in videos]
        )


@cache
def frame_cache(folder: str | None, image_patch_size: int) -> FrameCache:
    """The cache of this process. Raises ``ValueError`` if no folder is set."""
    if not folder:
        raise ValueError("data.frame_cache is not set: give the folder that `verl-twgrpo data frames` filled")
    return FrameCache(folder, image_patch_size)
