"""Positions of a video's tokens in the actor, as the models were trained and as vLLM counts them for the rollout.

For Qwen2-VL and Qwen2.5-VL, verl 0.9.1 asks transformers' ``get_rope_index``. In transformers 5 that lets the text
after a video go on behind its height and width only (https://github.com/huggingface/transformers/issues/45381), and
rounds the seconds between grids down to whole ones. verl does not hand it the seconds at all. vLLM goes on behind the
largest position and takes the seconds as they are, as transformers 4 did. Qwen3-VL writes the time into its text, and
is left to verl.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch

from verl_twgrpo.compat.workaround import Workaround
from verl_twgrpo.video.positions import prompt_positions

QWEN2_VL, QWEN2_5_VL = "Qwen2VLProcessor", "Qwen2_5_VLProcessor"


def video_positions(
    processor: Any,
    input_ids_T: torch.Tensor,
    attention_mask_T: torch.Tensor,
    video_grid_thw: torch.Tensor,
    image_grid_thw: torch.Tensor | None = None,
    seconds_per_grid: Sequence[float] | torch.Tensor | None = None,
) -> torch.Tensor:
    """Time, height and width of every token: int64 [3, T], 1 where the mask is 0.

    Args:
        processor: as verl's ``hf_processor`` makes it, with the model's configuration in ``config``.
        video_grid_thw: patches of each video along time, height and width, int64 [videos, 3]; of images likewise.
        seconds_per_grid: of each video (video/rate.py); only Qwen2.5-VL wants them.

    Raises:
        ValueError: if they are missing, or do not fit the prompt.
    """
    vision = processor.config.vision_config
    scale = float(getattr(vision, "tokens_per_second", 1.0))  # vLLM's default for Qwen2-VL, which has no such setting
    if type(processor).__name__ == QWEN2_VL:
        seconds_per_grid = [1.0] * len(video_grid_thw)
    elif seconds_per_grid is None:
        raise ValueError("the processor does not say second_per_grid_ts of its videos, so their time is not known")
    live_T = attention_mask_T.bool()
    positions_3T = torch.ones(3, len(input_ids_T), dtype=torch.int64)
    positions_3T[:, live_T] = prompt_positions(
        input_ids_T[live_T],
        video_token=processor.video_token_id,
        image_token=processor.image_token_id,
        video_grids=video_grid_thw.tolist(),
        image_grids=[] if image_grid_thw is None else image_grid_thw.tolist(),
        # float32 is what vLLM's processor hands on
        time_steps=[float(seconds) * scale for seconds in torch.as_tensor(seconds_per_grid, dtype=torch.float32)],
        merge=vision.spatial_merge_size,
    )
    return positions_3T


def count_as_trained(agent_loop: ModuleType) -> None:
    """Let verl's ``AgentLoopWorker`` count them so (verl/experimental/agent_loop/agent_loop.py)."""
    stock = agent_loop.AgentLoopWorker._compute_position_ids

    def _compute_position_ids(
        self: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        multi_modal_inputs: dict[str, Any],
        mm_processor_kwargs: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        ours = type(self.processor).__name__ in (QWEN2_VL, QWEN2_5_VL)
        if ours and multi_modal_inputs.get("video_grid_thw") is not None:
            return position_ids(self.processor, input_ids, attention_mask, multi_modal_inputs)
        return stock(self, input_ids, attention_mask, multi_modal_inputs, mm_processor_kwargs)

    # no proxy of wrapt's: Ray sends actor classes by value, and what arrives is the function inside the proxy
    agent_loop.AgentLoopWorker._compute_position_ids = _compute_position_ids


def position_ids(
    processor: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, multi_modal_inputs: dict[str, Any]
) -> torch.Tensor:
    """Place in the text, then ``video_positions``: int64 [1, 4, T] of a row [1, T]."""
    # for positions only: verl drops it here too, as the model's forward is not to get it
    multi_modal_inputs.pop("mm_token_type_ids", None)
    vision_3T = video_positions(
        processor,
        input_ids[0],
        attention_mask[0],
        multi_modal_inputs["video_grid_thw"],
        multi_modal_inputs.get("image_grid_thw"),
        multi_modal_inputs.get("second_per_grid_ts"),
    )
    live_T = attention_mask[0].bool()
    text_T = torch.ones_like(input_ids[0])
    text_T[live_T] = torch.arange(int(live_T.sum()))
    return torch.cat((text_T[None], vision_3T)).unsqueeze(0)


WORKAROUND = Workaround(
    module="verl.experimental.agent_loop.agent_loop",
    apply=count_as_trained,
    because="counts the positions of a video, and of the text behind it, without its time and otherwise than vLLM",
    versions="verl==0.9.1",
    link="https://github.com/huggingface/transformers/issues/45381",
)
