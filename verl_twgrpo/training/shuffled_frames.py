"""Agent loops that show the frames of a video in another order to a prompt's rollouts beyond its group (T-GRPO).

Only the order of the frames changes: their number, their times, the tokens and the grid stay as they are. All shuffled
rollouts of a prompt see one order, as in Video-R1 (src/r1-v/src/open_r1/trainer/grpo_trainer.py).
"""

from __future__ import annotations

from typing import Any

import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from verl_twgrpo.training.seeded_rollout import SeededSingleTurnAgentLoop
from verl_twgrpo.training.settings import SEEDED_SHUFFLING_LOOP, SHUFFLING_LOOP
from verl_twgrpo.training.views import row_seed
from verl_twgrpo.video.sharing import reordered_frames

# A prompt's column: how many of its rollouts see the frames in order; those behind them are shuffled.
ORDERED = "tw_grpo_ordered_rollouts"
# The mark that a shuffled rollout carries in its ``extra_fields``.
SHUFFLED = "tw_grpo_shuffled"


class _ShufflesFrames:
    """Goes before an agent loop of verl's; a loop is made anew for every rollout."""

    _seed: int | None = None

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """One response, to shuffled frames if the rollout's number is beyond its group."""
        ordered = kwargs.get(ORDERED)
        if ordered is not None and int(kwargs["session_id"]) >= int(ordered):
            seed = self.config.algorithm.tw_grpo.seed  # type: ignore[attr-defined]
            self._seed = row_seed(seed, kwargs.get("global_steps", 0), kwargs.get("index", 0))
        output: AgentLoopOutput = await super().run(sampling_params, **kwargs)  # type: ignore[misc]
        output.extra_fields[SHUFFLED] = self._seed is not None
        return output

    async def process_multi_modal_info(self, messages: list[dict]) -> dict[str, Any]:
        data = await super().process_multi_modal_info(messages)  # type: ignore[misc]
        if self._seed is not None and data.get("videos") is not None:
            data["videos"] = [shuffled(video, self._seed) for video in data["videos"]]
        return data


@register(SHUFFLING_LOOP)
class ShufflingSingleTurnAgentLoop(_ShufflesFrames, SingleTurnAgentLoop):
    """verl's single-turn loop (verl/experimental/agent_loop/single_turn_agent_loop.py)."""


@register(SEEDED_SHUFFLING_LOOP)
class SeededShufflingSingleTurnAgentLoop(_ShufflesFrames, SeededSingleTurnAgentLoop):
    """The one whose samples depend on the seed."""


def shuffled(video: Any, seed: int) -> Any:
    """A video, as verl hands one on: frames [T, ...], a list of frames, or either of them with metadata in a tuple."""
    if isinstance(video, tuple):
        return (shuffled(video[0], seed), *video[1:])
    order = frame_order(len(video), seed)
    return reordered_frames(video, order) if isinstance(video, torch.Tensor) else [video[place] for place in order]


def frame_order(frames: int, seed: int) -> list[int]:
    """A permutation of the frames; never their own order, where there are two of them."""
    order = torch.randperm(frames, generator=torch.Generator().manual_seed(seed)).tolist()
    return order[1:] + order[:1] if order == sorted(order) else order
