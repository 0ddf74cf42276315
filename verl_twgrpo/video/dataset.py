"""verl's input side on prepared frames: no rollout decodes a video, and the rollouts of a prompt share one preparation.

On stock verl every rollout decodes its video, and runs the processor over its frames twice (once to count the prompt's
tokens, once for the trainer's inputs; verl/experimental/agent_loop/agent_loop.py). Chosen by
``data.custom_cls.path=pkg://verl_twgrpo.video.dataset data.custom_cls.name=CachedFramesDataset``, with
``+data.frame_cache=FOLDER`` as ``verl-twgrpo data frames`` filled it.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from omegaconf import DictConfig
from verl.utils.dataset.rl_dataset import RLHFDataset

from verl_twgrpo.video.cache import FrameCache
from verl_twgrpo.video.sharing import shared_frames


class CachedFramesDataset(RLHFDataset):
    """RLHFDataset whose videos come from a ``FrameCache``; images, if there are any, come as ever."""

    @classmethod
    def _process_multi_modal_info(
        cls, messages: list[dict], image_patch_size: int, config: DictConfig
    ) -> tuple[list | None, list[tuple[torch.Tensor, dict[str, Any]]] | None, list | None]:
        """Images, videos as (float frames [T, 3, height, width], metadata), and audios.

        verl calls this in a pool of threads, once a rollout; all of them get the same frame objects.

        Raises:
            ValueError: if ``data.frame_cache`` is not set.
            FileNotFoundError: if the frames of a video were not prepared.
        """
        videos, rest = [], []
        for message in messages:
            content = message["content"]
            if isinstance(content, list):
                videos += [element for element in content if "video" in element]
                content = [element for element in content if "video" not in element]
            rest.append({**message, "content": content})
        images, _, audios = super()._process_multi_modal_info(rest, image_patch_size, config)
        if not videos:
            return images, None, audios
        frames = frame_cache(config.get("frame_cache"), image_patch_size)
        return images, [shared_frames(frames.get, video) for video in videos], audios


_caches: dict[tuple[str, int], FrameCache] = {}
_lock = threading.Lock()


def frame_cache(folder: str | None, image_patch_size: int) -> FrameCache:
    """The one cache of this process. Raises ``ValueError`` if no folder is set."""
    if not folder:
        raise ValueError("data.frame_cache is not set: give the folder that `verl-twgrpo data frames` filled")
    with _lock:
        return _caches.setdefault((folder, image_patch_size), FrameCache(folder, image_patch_size))
