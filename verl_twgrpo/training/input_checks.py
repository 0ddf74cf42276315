"""What a run proves about its input while it trains: rollout and actor are one policy."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transfer_queue import KVBatchMeta

if TYPE_CHECKING:
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer as _Trainer  # what it goes before
else:
    _Trainer = object

logger = logging.getLogger(__name__)

DIFFERENCE = "training/rollout_probs_diff_mean"


class InputChecks(_Trainer):
    """Goes before verl's trainer and looks at what its old-log-prob step brings (verl/trainer/ppo/v1/trainer_base.py).

    Settings: ``algorithm.tw_grpo.max_rollout_probs_diff``.
    """

    _rollout_checked = False

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_old_log_prob(batch, metrics)
        if not self._rollout_checked and self._responses_are_current():
            self._rollout_checked = check_rollout_probs(metrics, self.tw_grpo.max_rollout_probs_diff)
        return batch

    def _responses_are_current(self) -> bool:
        """Whether all of the batch was answered by the policy that its log-probs are taken under."""
        return True


def check_rollout_probs(metrics: Mapping[str, Any], limit: float | None) -> bool:
    """Compare verl's mean difference between rollout's and actor's probabilities with ``limit``.

    Returns:
        Whether this step has settled it: False where no token could be compared.

    Raises:
        ValueError: if the difference is above the limit; the run trains another policy than the one that answers.
    """
    if limit is None:
        return True
    if DIFFERENCE not in metrics:
        logger.warning(
            "rollout and actor are not compared, as verl keeps no log-probs of the rollout: set "
            "actor_rollout_ref.rollout.calculate_log_probs=True (or algorithm.tw_grpo.max_rollout_probs_diff=null)"
        )
        return True
    if not metrics.get("training/rollout_probs_diff_valid", 1):
        return False
    difference = float(metrics[DIFFERENCE])
    if math.isnan(difference) or difference > limit:
        raise ValueError(
            f"{DIFFERENCE} is {difference:.3g} at the first step: rollout and actor give the sampled tokens other "
            f"probabilities (algorithm.tw_grpo.max_rollout_probs_diff={limit:g}), as where they see the prompt or its "
            "video differently; `verl-twgrpo parity MODEL --data PARQUET` shows where. null switches this check off"
        )
    return True
