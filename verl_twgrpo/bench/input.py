"""``verl-twgrpo bench input``: what a step's input side costs on stock verl, and on prepared frames, in one run."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Videos, and how a step uses them."""
    parser.add_argument("videos", nargs="+", type=Path, help="mp4 files, one per prompt")
    parser.add_argument("--rollouts", type=int, default=8, help="rollouts per prompt (n)")
    parser.add_argument("--frames", type=int, default=16, help="frames per video")
    parser.add_argument("--max-pixels", type=int, default=128 * 28 * 28, help="pixels a frame")
    parser.add_argument("--repeat", type=int, default=3, help="steps to time; the best counts")


def run(args: argparse.Namespace) -> int:
    """Print seconds of one step for both, and their ratio."""
    import verl  # noqa: F401 - the plugin: video reader, and processors that share preparations
    from transformers import Qwen2VLVideoProcessor
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from verl_twgrpo.data.parquet import FrameLimits
    from verl_twgrpo.video.cache import FrameCache
    from verl_twgrpo.video.dataset import CachedFramesDataset
    from verl_twgrpo.video.decode import prepare_video

    limits = FrameLimits(args.frames, args.max_pixels)
    prompts: list[list[dict[str, Any]]] = []
    for path in args.videos:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such video")
        video = {"video": str(path), "nframes": limits.nframes, "min_pixels": limits.min_pixels}
        prompts.append([{"role": "user", "content": [{"type": "video", "max_pixels": limits.max_pixels, **video}]}])
    processor = Qwen2VLVideoProcessor()

    def step(dataset, config) -> float:
        started = time.perf_counter()
        for messages in prompts:
            for _ in range(args.rollouts):
                _, videos, _ = asyncio.run(
                    dataset.process_multi_modal_info(messages, image_patch_size=14, config=config)
                )
                frames, metadata = zip(*videos, strict=True)
                for _ in range(2):  # once for the prompt's tokens, once for the trainer's inputs
                    processor(
                        videos=list(frames), video_metadata=list(metadata), do_sample_frames=False, return_tensors="pt"
                    )
        return time.perf_counter() - started

    with tempfile.TemporaryDirectory() as folder:
        cache = FrameCache(folder)
        for messages in prompts:
            element = messages[0]["content"][0]
            cache.put(element, *prepare_video(element), notes=[])
        config = OmegaConf.create({"frame_cache": folder})
        stock = min(step(RLHFDataset, config) for _ in range(args.repeat))
        # every step of a run has prompts that it has not seen for long: nothing is left in memory from the last
        ours = min(_forgetful(step, CachedFramesDataset, config) for _ in range(args.repeat))
    print(
        f"{len(prompts)} prompts x {args.rollouts} rollouts, {args.frames} frames of at most {args.max_pixels} pixels"
    )
    print(f"stock verl       {stock:8.3f} s per step")
    print(f"prepared frames  {ours:8.3f} s per step")
    print(f"ratio            {stock / ours:8.1f}")
    return 0


def _forgetful(step, dataset, config) -> float:
    from verl_twgrpo.video import dataset as frames

    frames._caches.clear()
    return step(dataset, config)
