"""Rollouts that can be drawn again: every response has a seed of its own that depends on its place in the run only."""

import asyncio
from itertools import product
from types import SimpleNamespace

import pytest
import verl  # noqa: F401 - loads the plugin
import verl.experimental.agent_loop  # noqa: F401 - registers the loop
from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from verl_twgrpo.training.seeded_rollout import SeededSingleTurnAgentLoop, response_seed
from verl_twgrpo.training.settings import SEEDED_LOOP


def test_verl_finds_the_loop_by_its_name():
    assert _agent_loop_registry[SEEDED_LOOP]["_target_"].endswith("SeededSingleTurnAgentLoop")


def test_no_two_responses_share_a_seed_and_vllm_can_take_it():
    seeds = [response_seed(*place) for place in product((1, 2), (0, 1, 11), (0, 1, 11), range(8))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.fixture
def asked(monkeypatch):
    """The sampling parameters with which verl's loop is called."""
    seen = []

    async def run(self, sampling_params, **kwargs):
        seen.append(sampling_params)

    monkeypatch.setattr(SingleTurnAgentLoop, "run", run)
    return seen


def test_a_request_carries_its_seed_and_the_callers_parameters_stay_as_they_are(asked):
    loop = object.__new__(SeededSingleTurnAgentLoop)
    loop.rollout_config = SimpleNamespace(seed=7)
    shared = {"temperature": 1.0}
    for session in (0, 1, 0):
        asyncio.run(loop.run(shared, global_steps=3, index=12, session_id=session, priority=0))
    assert shared == {"temperature": 1.0}
    assert [parameters["temperature"] for parameters in asked] == [1.0] * 3
    assert asked[0] == asked[2] and asked[0]["seed"] != asked[1]["seed"]
    assert asked[0]["seed"] == response_seed(7, 3, 12, 0)
