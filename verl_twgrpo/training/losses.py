"""The policy loss ``tw_grpo`` and the advantage estimator ``tw_grpo`` in verl's signatures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from verl.trainer.ppo.core_algos import agg_loss

from verl_twgrpo.algorithm import group_normalised_advantage
from verl_twgrpo.algorithm import tw_grpo_policy_loss as policy_loss
from verl_twgrpo.algorithm.anchors import Anchors, anchored_advantage
from verl_twgrpo.algorithm.task_deviation import TaskMoments, task_names, task_normalised_advantage

# Field of a batch that holds w_t by response token.
WEIGHTS_FIELD = "token_weights"

_weights_of_micro_batch: ContextVar[torch.Tensor | None] = ContextVar("token_weights", default=None)
_weights_at_hand: ContextVar[bool] = ContextVar("weights_at_hand", default=False)


@dataclass(frozen=True)
class Told:
    """What the estimator is told beside rewards and groups.

    final_row_of_row: for each row of the batch the row that holds its rollout's last output. scores: what the reward
    says of each row, None for padding rows. anchors, moments: of the settings that use them, else None; the moments
    take in this step's rewards.
    """

    final_row_of_row: Sequence[int]
    scores: Sequence[Mapping[str, Any] | None] = ()
    anchors: Anchors | None = None
    moments: TaskMoments | None = None
    std_limit: float = 5.0


_told: ContextVar[Told | None] = ContextVar("told", default=None)


class TokenWeightedLoss:
    """verl's loss function with the micro-batch's token weights at hand.

    verl's ``ppo_loss`` hands a registered policy loss the fields that it knows only (verl/workers/utils/losses.py), so
    the weights travel beside it.
    """

    def __init__(self, loss_fn: Callable[..., tuple[torch.Tensor, dict]]) -> None:
        self._loss_fn = loss_fn

    def __call__(self, model_output: Any, data: TensorDict, dp_group: Any = None) -> tuple[torch.Tensor, dict]:
        weights = data.get(WEIGHTS_FIELD, None)
        token = _weights_of_micro_batch.set(None if weights is None else _padded(weights))
        here = _weights_at_hand.set(True)
        try:
            return self._loss_fn(model_output=model_output, data=data, dp_group=dp_group)
        finally:
            _weights_at_hand.reset(here)
            _weights_of_micro_batch.reset(token)


def tw_grpo_loss(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Registered policy loss ``tw_grpo``: Eq. 6, or the clipped objective of advantages that are weighted already.

    Placement "outside" finds w in the advantages, so that the loss is verl's ``vanilla`` to the bit; "eq6" takes it
    from the batch.

    Raises:
        ValueError: no ``algorithm=tw_grpo`` behind it; token weights are asked for, but the worker is not that of the
            trainer ``tw_grpo``, which makes them; placement "eq6" without weights in the batch.
    """
    settings = getattr(config.policy_loss, "tw_grpo", None)
    if settings is None:
        raise ValueError(
            "actor_rollout_ref.actor.policy_loss.loss_mode=tw_grpo has no settings: select algorithm=tw_grpo, "
            "which sets both"
        )
    if settings.weighted and not _weights_at_hand.get():
        raise ValueError(
            "algorithm.tw_grpo: this trainer computes no token weights, so that the run would be plain GRPO; start it "
            "with python -m verl.trainer.main_ppo and trainer.v1.trainer_mode=tw_grpo, or set algorithm.tw_grpo.alpha=0"
        )
    weights = None
    if settings.placement == "eq6" and settings.weighted:
        weights = _weights_of_micro_batch.get()
        if weights is None:
            raise ValueError(
                "algorithm.tw_grpo.placement=eq6: the batch has no token weights; train with "
                "trainer.v1.trainer_mode=tw_grpo"
            )
    return policy_loss(
        old_log_prob,
        log_prob,
        advantages,
        response_mask,
        loss_agg_mode,
        config,
        rollout_is_weights,
        weights=weights,
        placement="eq6" if weights is not None else "outside",
        aggregate=lambda losses, mask, mode: agg_loss(
            loss_mat=losses, loss_mask=mask, loss_agg_mode=mode, **config.global_batch_info
        ),
    )


@contextmanager
def told(of_rows: Told) -> Iterator[None]:
    """Within it, ``tw_grpo`` takes advantages among rollouts' last outputs, and the others get their rollout's.

    So does verl for its estimator ``grpo`` alone (verl/trainer/ppo/v1/utils.py); an estimator is not told of keys.
    """
    token = _told.set(of_rows)
    try:
        yield
    finally:
        _told.reset(token)


def tw_grpo_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    config: Any = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Registered advantage estimator ``tw_grpo``: Eq. 1 by group, the same for all tokens of a response.

    Args:
        token_level_rewards, response_mask: [B, T].
        index: [B], the group (uid) of each response.
        config: the node ``algorithm``; ``tw_grpo.std_eps`` is added to the standard deviation.

    Returns:
        advantages and returns, both [B, T].

    Raises:
        ValueError: anchors or a deviation by task are asked for, and the trainer is not ``tw_grpo``.
    """
    settings = config.get("tw_grpo", None) if config is not None else None
    settings = {} if settings is None else settings
    std_eps = settings.get("std_eps", 0.0)
    of_rows = _told.get()
    if of_rows is None and (settings.get("anchors") is not None or settings.get("std", "group") != "group"):
        raise ValueError(
            "algorithm.tw_grpo: anchors and std=task need what the reward says of each response, which this trainer "
            "does not hand on; train with trainer.v1.trainer_mode=tw_grpo"
        )
    with torch.no_grad():
        rewards_B, groups = token_level_rewards.sum(-1), list(index)
        finals = list(range(len(groups))) if of_rows is None else list(of_rows.final_row_of_row)
        rows = sorted(set(finals))
        scores = [] if of_rows is None or not of_rows.scores else [of_rows.scores[row] for row in rows]
        of_final = _estimate(rewards_B[rows], [groups[row] for row in rows], std_eps, of_rows, scores)
        place = {row: k for k, row in enumerate(rows)}
        advantages_B = of_final[[place[row] for row in finals]]
        advantages_BT = advantages_B[:, None] * response_mask
    return advantages_BT, advantages_BT


def _estimate(
    rewards_B: torch.Tensor,
    groups: list[Any],
    std_eps: float,
    of_rows: Told | None,
    scores: list[Mapping[str, Any] | None],
) -> torch.Tensor:
    advantages_B = group_normalised_advantage(rewards_B, groups, eps=std_eps)
    if of_rows is not None and of_rows.moments is not None:
        tasks = task_names(scores)
        of_rows.moments.update(rewards_B, tasks)
        advantages_B = task_normalised_advantage(
            advantages_B, rewards_B, groups, tasks, of_rows.moments, of_rows.std_limit
        )
    if of_rows is not None and of_rows.anchors is not None:
        advantages_B = anchored_advantage(advantages_B, rewards_B, groups, scores, of_rows.anchors)
    return advantages_B


def _padded(values: torch.Tensor) -> torch.Tensor:
    return values.to_padded_tensor(0.0) if values.is_nested else values
