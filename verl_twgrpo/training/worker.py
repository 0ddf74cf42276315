"""verl's workers with our engine inside."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from verl.experimental.separation.engine_workers import DetachActorWorker
from verl.single_controller.base.decorator import Dispatch, register
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker, TrainingWorkerConfig

from verl_twgrpo.training.engines.fsdp import MODEL_TYPE
from verl_twgrpo.training.engines.options import EngineOptions, give_options
from verl_twgrpo.training.losses import TokenWeightedLoss


class TWGRPOTrainingWorker(TrainingWorker):
    """TrainingWorker whose engine is ``TWGRPOEngine`` with these options (verl/workers/engine_workers.py)."""

    def __init__(self, config: TrainingWorkerConfig, options: EngineOptions) -> None:
        give_options(config.model_config, options)
        super().__init__(replace(config, model_type=MODEL_TYPE))


class TWGRPOWorker(ActorRolloutRefWorker):
    """ActorRolloutRefWorker whose actor computes group divergences, and whose loss can see token weights."""

    def __init__(self, config: Any, role: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, role, *args, **kwargs)
        options = EngineOptions(freeze_vision_tower=bool(config.actor.get("freeze_vision_tower", False)))
        self.actor_worker_cls = partial(TWGRPOTrainingWorker, options=options)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        super().init_model()
        if "actor" in self.role:
            self.actor.set_loss_fn(TokenWeightedLoss(self.loss_fn))

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def last_weights_pass(self) -> dict[str, float]:
        """Seconds that the last weights pass took on this rank, and the vocabulary's size."""
        return self.actor.engine.last_pass

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def take_packing_counts(self) -> dict[str, int]:
        """Tokens that this rank ran through the model since the last call, and how many it had been unpacked."""
        return self.actor.engine.take_packing_counts()


class TWGRPODetachedWorker(TWGRPOWorker, DetachActorWorker):
    """The same, which can also put its parameters away and back (verl/experimental/separation/engine_workers.py)."""
