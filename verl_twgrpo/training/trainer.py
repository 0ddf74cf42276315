"""The V1 trainers that are registered with verl: token weights in each of verl's own (docs/parallelism.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_twgrpo.training.modes import OURS
from verl_twgrpo.training.trainer_mixin import TokenWeights
from verl_twgrpo.training.worker import TWGRPODetachedWorker


@register_trainer(OURS["sync"])
class TWGRPOTrainer(TokenWeights, PPOTrainerSync):
    """verl's synchronous trainer with token weights."""

    verls_mode = "sync"


@register_trainer(OURS["colocate_async"])
class TWGRPOColocateAsync(TokenWeights, PPOTrainerColocateAsync):
    """verl's trainer whose rollouts go on over the steps, on the GPUs that train."""

    verls_mode = "colocate_async"


@register_trainer(OURS["separate_async"])
class TWGRPOSeparateAsync(TokenWeights, PPOTrainerSeparateAsync):
    """verl's trainer with GPUs of their own for rollouts, and several updates between two hand-overs of parameters.

    Weights come from the policy at the beginning of the step, for which verl puts its parameters back.
    """

    verls_mode = "separate_async"
    worker_class = TWGRPODetachedWorker

    def _extra_pass(self, batch: KVBatchMeta, column: str, view: str | Mapping[str, Any]) -> None:
        """Under that policy as well, as verl does it for the old log-probs (``_compute_old_log_prob``)."""
        now, workers = self.local_trigger_step, self.actor_rollout_wg
        if now == 0:
            return super()._extra_pass(batch, column, view)
        workers.save_model_to_cpu(now)
        workers.restore_model_from_cpu(0)
        super()._extra_pass(batch, column, view)
        workers.restore_model_from_cpu(now)
        workers.clear_cpu_model(now)
