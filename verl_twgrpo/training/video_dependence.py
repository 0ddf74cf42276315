"""Does the policy look at the video: by how much do a response's log-probs fall when the video is blanked?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transfer_queue import KVBatchMeta

from verl_twgrpo.rows import as_list

# One row per micro-batch: any number of rows divides.
ALONE = {"micro_batch_size_per_gpu": 1, "use_dynamic_bsz": False}


def video_dependence(trainer: Any, batch: KVBatchMeta) -> dict[str, float]:
    """Two no-gradient passes over a few rows with a video, once with the video as it is and once with a grey one.

    The base is a pass of its own, not the old log-probs: in bfloat16 those of the head pass are rounded elsewhere.
    Settings: ``algorithm.tw_grpo.video_check_freq``, ``video_check_rows``. No metrics where no row has a video.
    """
    prompts = as_list(trainer._fetch(batch, ["raw_prompt"])["raw_prompt"])
    with_video = [
        key
        for key, tag, prompt in zip(batch.keys, batch.tags, prompts, strict=True)
        if not tag.get("is_padding", False) and has_video(prompt)
    ]
    chosen = spread_out(with_video, trainer.tw_grpo.video_check_rows, trainer._data_parallel_size())
    if not chosen:
        return {}
    few = batch.select_keys(chosen)
    columns = {view: f"video_check_{view}" for view in ("unchanged", "blank")}
    for view, column in columns.items():
        # set each time: verl makes a batch's extra_info anew after a pass
        few.extra_info = {**(few.extra_info or {}), **ALONE}
        trainer._extra_pass(few, column, view)
    data = trainer._fetch(few, [*columns.values(), "response_mask"])
    seen, blank, masks = (data[name].unbind() for name in (*columns.values(), "response_mask"))
    return dependence_metrics([(s - b)[m.bool()] for s, b, m in zip(seen, blank, masks, strict=True)])


def has_video(prompt: Sequence[dict[str, Any]]) -> bool:
    """Whether a chat, as verl's dataset hands it on (``raw_prompt``), has a video in it."""
    contents = [message.get("content") for message in prompt]
    return any(
        isinstance(part, dict) and part.get("type") == "video"
        for content in contents
        if isinstance(content, list)
        for part in content
    )


def spread_out(keys: Sequence[str], wanted: int, ranks: int) -> list[str]:
    """``wanted`` of the keys, evenly spaced, up to a multiple of the ranks; fewer where there are fewer."""
    count = min(-(-wanted // ranks) * ranks, len(keys) // ranks * ranks)
    return [keys[k * len(keys) // count] for k in range(count)]


def dependence_metrics(differences: Sequence[torch.Tensor]) -> dict[str, float]:
    """Mean over tokens of d = log p(y | video) - log p(y | blank video), in nats, and of its size."""
    tokens = torch.cat([difference.float() for difference in differences])
    return {
        "tw_grpo/video_dependence": tokens.mean().item(),
        "tw_grpo/video_dependence_abs": tokens.abs().mean().item(),
        "tw_grpo/video_check_rows": float(len(differences)),
    }
