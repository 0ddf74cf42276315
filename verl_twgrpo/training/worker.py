"""verl's workers with our engine inside."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from verl.single_controller.base.decorator import Dispatch, register
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker, TrainingWorkerConfig

from verl_twgrpo.training.engines.fsdp import MODEL_TYPE, TWGRPOEngine
from verl_twgrpo.training.losses import TokenWeightedLoss


class TWGRPOTrainingWorker(TrainingWorker):
    """TrainingWorker whose engine is ``TWGRPOEngine`` (verl/workers/engine_workers.py)."""

    def __init__(self, config: TrainingWorkerConfig, freeze_vision: bool = False) -> None:
        TWGRPOEngine.freeze_vision = freeze_vision
        super().__init__(replace(config, model_type=MODEL_TYPE))


class TWGRPOWorker(ActorRolloutRefWorker):
    """ActorRolloutRefWorker whose actor computes group divergences, and whose loss can see token weights."""

    def __init__(self, config: Any, role: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, role, *args, **kwargs)
        self.actor_worker_cls = partial(
            TWGRPOTrainingWorker, freeze_vision=bool(config.actor.get("freeze_vision_tower", False))
        )

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        super().init_model()
        if "actor" in self.role:
            self.actor.set_loss_fn(TokenWeightedLoss(self.loss_fn))

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def last_weights_pass(self) -> dict[str, float]:
        """Seconds that the last weights pass took on this rank, and the vocabulary's size."""
        return self.actor.engine.last_pass
