"""An agent loop that fails for some rollouts, as tools and time limits do."""

from __future__ import annotations

from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

# session (place in the group) at which a rollout fails, by the parity of the prompt's index
FAILS = {0: (3,), 1: (0, 5, 6)}


class ShortGroups(SingleTurnAgentLoop):
    """Single-turn generation in which rollouts of fixed places fail."""

    async def run(self, sampling_params, **kwargs):
        if kwargs["session_id"] in FAILS[int(kwargs["index"]) % 2]:
            raise RuntimeError("this rollout fails on purpose")
        return await super().run(sampling_params, **kwargs)
