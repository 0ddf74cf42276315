"""Writes what a run does to the file $CHAOS_PHASES: a line as each part of a step begins and ends, or breaks.

verl imports it from $VERL_USE_EXTERNAL_MODULES in each of its processes (verl/__init__.py); chaos.py reads the file.
"""

from __future__ import annotations

import functools
import os
import time
from types import ModuleType
from typing import Any

import wrapt

# module, class, method -> the part of a step that it is
PARTS = {
    ("verl.trainer.ppo.v1.replay_buffer", "ReplayBuffer", "sample"): "rollouts",
    ("verl_twgrpo.training.trainer_mixin", "TokenWeights", "_compute_old_log_prob"): "head pass",
    ("verl_twgrpo.training.trainer_mixin", "TokenWeights", "_update_actor"): "update",
    ("verl_twgrpo.training.trainer_mixin", "TokenWeights", "_save_checkpoint"): "checkpoint",
    ("verl_twgrpo.training.dump", "StepDump", "_write"): "dump",
}


def note(edge: str, part: str, step: int | None) -> None:
    """One line, appended in one write."""
    line = f"{time.time():.3f}\t{edge}\t{part}\t{'' if step is None else step}\n"
    with open(os.environ["CHAOS_PHASES"], "ab", buffering=0) as file:
        file.write(line.encode())


def watch(module: ModuleType, cls: str, method: str, part: str) -> None:
    stock = getattr(getattr(module, cls), method)

    @functools.wraps(stock)
    def watched(*args: Any, **kwargs: Any) -> Any:
        # the trainer knows its step, and tells it to the replay buffer
        step = kwargs.get("global_steps", getattr(args[0], "global_steps", None))
        note("begin", part, step)
        edge = "broken"  # a checkpoint whose worker was killed is none
        try:
            found = stock(*args, **kwargs)
            edge = "end"
        finally:
            note(edge, part, step)
        return found

    setattr(getattr(module, cls), method, watched)


for (name, cls, method), part in PARTS.items():
    wrapt.register_post_import_hook(functools.partial(watch, cls=cls, method=method, part=part), name)
