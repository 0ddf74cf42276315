"""What our worker tells its engine; verl's TrainingWorker passes an engine nothing of the actor's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Attribute of verl's HFModelConfig that carries the options: the one object that the worker and the engine share.
_ATTRIBUTE = "tw_grpo_engine_options"


@dataclass(frozen=True)
class EngineOptions:
    """Options of an engine.

    freeze_vision_tower: ``actor_rollout_ref.actor.freeze_vision_tower``.
    """

    freeze_vision_tower: bool = False


def give_options(model_config: Any, options: EngineOptions) -> None:
    """Attach options to a model's configuration, from which its engine takes them."""
    setattr(model_config, _ATTRIBUTE, options)


def options_of(model_config: Any) -> EngineOptions:
    """The options attached to a model's configuration; the defaults where nobody attached any."""
    return getattr(model_config, _ATTRIBUTE, EngineOptions())
