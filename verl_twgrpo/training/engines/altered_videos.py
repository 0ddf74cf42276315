"""A micro-batch with altered videos, for the extra pass of a weighting."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tensordict import NonTensorData, NonTensorStack, TensorDict

from verl_twgrpo.rows import as_list
from verl_twgrpo.training.views import PIXELS, Colours, View, altered_inputs, colours_of, row_seed

COLUMN = "multi_modal_inputs"


def with_altered_videos(micro_batch: TensorDict, settings: Mapping[str, Any], processor: Any) -> TensorDict:
    """The micro-batch with other pixels in its videos; tokens, grids and positions stay, and so do rows without one.

    What a view draws is the same for all responses to a prompt, on every rank and in every run: it depends on seed,
    step and the prompt's tokens.

    Args:
        settings: fields of ``View``, and seed and step.
        processor: of the model; its video processor says what grey and black are.

    Raises:
        ValueError: an impossible view, or a video without a video processor.
    """
    fields = dict(settings)
    seed, step = fields.pop("seed"), fields.pop("step")
    view = View(**fields)
    rows = [row.data if isinstance(row, NonTensorData) else row for row in as_list(micro_batch.get(COLUMN, []))]
    if not any(row and row.get(PIXELS) is not None for row in rows):
        return micro_batch
    video_processor = getattr(processor, "video_processor", None)
    if video_processor is None:
        raise ValueError(f"tw_grpo: an extra pass over view {view.name!r} needs a model with a video processor")
    prompts = micro_batch["prompts"].unbind()
    altered = [
        row and altered_inputs(row, view, _colours(video_processor), row_seed(seed, step, *prompt.tolist()))
        for row, prompt in zip(rows, prompts, strict=True)
    ]
    copy = micro_batch.copy()
    copy[COLUMN] = NonTensorStack.from_list([NonTensorData(row) for row in altered])
    return copy


@lru_cache(maxsize=2)
def _colours(video_processor: Any) -> Colours:
    return colours_of(video_processor)
