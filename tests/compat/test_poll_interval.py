"""Rollouts that are done are seen soon, and long ones are not asked after more often than verl does."""

from __future__ import annotations

import time

import pytest
import verl  # noqa: F401 - loads the plugin
from hypothesis import given
from hypothesis import strategies as st
from verl.trainer.ppo.v1 import replay_buffer

from verl_twgrpo.compat.poll_interval import next_sleep

STOCK_INTERVAL = 2.0  # verl 0.9.1's default


class Finished(replay_buffer.ReplayBuffer):
    """A buffer whose only group is finished ``seconds`` after sampling starts."""

    def __init__(self, seconds: float) -> None:
        self.poll_interval = STOCK_INTERVAL
        self.filter_groups_metric = None
        self.sync_refill_failed_groups = False
        self.pending_keys = self.running_keys = self.finished_keys = self.failure_keys = {"train": set()}
        self.looks, self.done = 0, time.monotonic() + seconds

    def _sync_metadata_from_transfer_queue(self):
        self.looks += 1

    def _terminal_eviction_reasons(self, *_):
        return set(), set(), set()

    def _evict_terminal_groups(self, *_):
        return set(), 0, 0, {}

    def _sampleable_terminal_keys(self, *_):
        return {"a"} if time.monotonic() > self.done else set()

    def _select_prompt_uids(self, *_):
        return ["a"], {"a_0_0": {}}, {}

    def _materialize_batch(self, *_):
        return "the batch"


def sampled(seconds: float) -> tuple[float, int]:
    buffer = Finished(seconds)
    started = time.monotonic()
    batch, _ = buffer.sample(1, "train", 1)
    assert batch == "the batch"
    assert buffer.poll_interval == STOCK_INTERVAL
    return time.monotonic() - started, buffer.looks


def test_a_short_rollout_is_seen_long_before_verl_would_look_again():
    took, looks = sampled(0.3)
    assert took < STOCK_INTERVAL / 2
    assert looks < 40


@pytest.mark.slow
@pytest.mark.upstream_bug
def test_stock_verl_sleeps_two_seconds_first(monkeypatch):
    wrapper = replay_buffer.ReplayBuffer._wait_for_next_poll
    monkeypatch.setattr(replay_buffer.ReplayBuffer, "_wait_for_next_poll", wrapper.__wrapped__)
    took, looks = sampled(0.3)
    assert took >= STOCK_INTERVAL and looks == 2


@given(st.floats(0, 1e5), st.floats(0.1, 10))
def test_the_sleep_grows_with_the_wait_up_to_verls(waited, longest):
    sleep = next_sleep(waited, longest)
    assert 0 < sleep <= longest
    assert sleep <= max(0.1 * waited, 0.02) + 1e-9
    assert next_sleep(100 * longest, longest) == pytest.approx(longest)
