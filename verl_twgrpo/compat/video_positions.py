"""Positions of a video's tokens in the actor, as vLLM counts them for the rollout.

For Qwen2.5-VL, verl 0.9.1 asks transformers (5.x), which lets the text after a video go on behind its height and width
only, and knows no time between frames. vLLM goes on behind the largest position, as the model was trained, and takes
its frames as 24 a second, as it drops the rate that verl hands over. Rollouts would be another policy's.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from verl_twgrpo.compat.workaround import Workaround

PROCESSOR = "Qwen2_5_VLProcessor"
# what transformers takes for a video of unknown rate (video_utils.py, VideoMetadata), and so what vLLM gets from it
UNTOLD_RATE = 24
# built into verl's get_rope_index; Qwen2.5-VL's released configurations have the same
TOKENS_PER_SECOND = 2


def video_positions(
    processor: Any,
    tokens_per_second: float,
    input_ids_T: torch.Tensor,
    attention_mask_T: torch.Tensor,
    video_grid_thw: torch.Tensor,
    image_grid_thw: torch.Tensor | None = None,
    rollout_dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Time, height and width of every token: int64 [3, T] (vLLM, model_executor/models/qwen2_5_vl.py).

    Args:
        tokens_per_second: of the model's vision configuration.
        video_grid_thw: patches of each video along time, height and width, int64 [videos, 3]; of images likewise.
        rollout_dtype: of the model in vLLM, which keeps the seconds between patches in it as well.
    """
    from verl.models.transformers.qwen2_vl import get_rope_index

    seconds = processor.video_processor.temporal_patch_size / UNTOLD_RATE
    scaled = float(torch.tensor(seconds, dtype=rollout_dtype)) * tokens_per_second / TOKENS_PER_SECOND
    return get_rope_index(
        processor,
        input_ids_T,
        image_grid_thw=image_grid_thw,
        video_grid_thw=video_grid_thw,
        second_per_grid_ts=torch.full((len(video_grid_thw),), scaled, dtype=torch.float64),
        attention_mask=attention_mask_T,
    )


def follow_vllm(agent_loop: ModuleType) -> None:
    """Let verl's ``AgentLoopWorker`` count them so (verl/experimental/agent_loop/agent_loop.py)."""
    stock = agent_loop.AgentLoopWorker._compute_position_ids

    def _compute_position_ids(
        self: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        multi_modal_inputs: dict[str, Any],
        mm_processor_kwargs: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        if type(self.processor).__name__ == PROCESSOR and multi_modal_inputs.get("video_grid_thw") is not None:
            return _position_ids(self, input_ids, attention_mask, multi_modal_inputs)
        return stock(self, input_ids, attention_mask, multi_modal_inputs, mm_processor_kwargs)

    # no proxy of wrapt's: Ray sends actor classes by value, and what arrives is the function inside the proxy
    agent_loop.AgentLoopWorker._compute_position_ids = _compute_position_ids


def _position_ids(
    worker: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, multi_modal_inputs: dict[str, Any]
) -> torch.Tensor:
    """Place in the text, then ``video_positions``: int64 [1, 4, T] of a row [1, T]."""
    from verl.utils.torch_dtypes import PrecisionType

    # for positions only: verl drops it here too, as the model's forward is not to get it
    multi_modal_inputs.pop("mm_token_type_ids", None)
    vision_3T = video_positions(
        worker.processor,
        worker.processor.config.vision_config.tokens_per_second,
        input_ids[0],
        attention_mask[0],
        multi_modal_inputs["video_grid_thw"],
        multi_modal_inputs.get("image_grid_thw"),
        PrecisionType.to_dtype(worker.rollout_config.dtype),
    )
    live_T = attention_mask[0].bool()
    text_T = torch.ones_like(input_ids[0])
    text_T[live_T] = torch.arange(int(live_T.sum()))
    return torch.cat((text_T[None], vision_3T)).unsqueeze(0)


WORKAROUND = Workaround(
    module="verl.experimental.agent_loop.agent_loop",
    apply=follow_vllm,
    because="counts the positions of a video, and of the text behind it, otherwise than vLLM does for the rollout",
    versions="verl==0.9.1",
)
