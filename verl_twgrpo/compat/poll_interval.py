"""How long verl's replay buffer sleeps between two looks for finished rollouts.

verl 0.9.1 sleeps two seconds, whatever the rollouts take, and offers no setting (``poll_interval`` of
``ReplayBuffer``, verl/trainer/ppo/v1/replay_buffer.py), so that ``timing_s/gen`` is a multiple of two seconds: most of
a small run's step. Here the sleep grows with the wait: a tenth of the time waited so far, up to verl's interval. A step
is then delayed by a tenth of its rollouts at most, and a long one is polled as rarely as before.
"""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any

import wrapt

from verl_twgrpo.compat.workaround import Workaround

SHARE = 0.1
SHORTEST = 0.02  # seconds; one look asks the TransferQueue controller for its metadata, about a millisecond


def shorten_polling(replay_buffer: ModuleType) -> None:
    """Wrap what waits in verl's replay buffers, synchronous and asynchronous."""
    for buffer in (replay_buffer.ReplayBuffer, replay_buffer.ReplayBufferAsync):
        for name in ("sample", "wait_for_sampleable"):
            if name in vars(buffer):
                wrapt.wrap_function_wrapper(buffer, name, _note_start)
    wrapt.wrap_function_wrapper(replay_buffer.ReplayBuffer, "_wait_for_next_poll", _wait)


def next_sleep(waited: float, longest: float) -> float:
    """Seconds until the next look after ``waited`` seconds; never more than ``longest``."""
    return min(max(SHARE * waited, SHORTEST), longest)


def _note_start(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    instance._sampling_since = time.monotonic()
    return wrapped(*args, **kwargs)


def _wait(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    longest = instance.poll_interval
    instance.poll_interval = next_sleep(time.monotonic() - instance._sampling_since, longest)
    try:
        return wrapped(*args, **kwargs)
    finally:
        instance.poll_interval = longest


WORKAROUND = Workaround(
    module="verl.trainer.ppo.v1.replay_buffer",
    apply=shorten_polling,
    because="sleeps two seconds between two looks for finished rollouts, and has no setting for it",
    versions="verl==0.9.1",
)
