"""An agent loop whose samples depend on the seed, not on the order in which requests meet in the engine.

vLLM draws requests without a seed of their own from one stream, so that two runs part at the first step. verl's own
``full_determinism`` gives every request the same seed, and with it a group's responses are all the same.
"""

from __future__ import annotations

import hashlib
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from verl_twgrpo.training.settings import SEEDED_LOOP


@register(SEEDED_LOOP)
class SeededSingleTurnAgentLoop(SingleTurnAgentLoop):
    """verl's single-turn loop with a seed per response (verl/experimental/agent_loop/single_turn_agent_loop.py)."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """One response; ``rollout.seed``, the step, the prompt's index and the response's number make its seed."""
        place = (kwargs.get("global_steps", 0), kwargs.get("index", 0), kwargs.get("session_id", 0))
        seed = response_seed(int(self.rollout_config.seed), *map(int, place))
        return await super().run({**sampling_params, "seed": seed}, **kwargs)


def response_seed(seed: int, step: int, index: int, session: int) -> int:
    """A seed of 63 bits (vLLM takes int64) that no two responses of a run share."""
    digest = hashlib.sha256(f"{seed}/{step}/{index}/{session}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
