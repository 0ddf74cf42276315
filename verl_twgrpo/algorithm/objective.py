"""The clipped objective with token weights (Eq. 6), and GRPO's without (Eq. 11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch

WeightPlacement = Literal["outside", "eq6"]

# exp() of a log-ratio beyond this overflows sums long before float32 does; verl clamps at the same value.
MAX_LOG_RATIO = 20.0


class ClippedObjective(NamedTuple):
    """Per-token losses and what the clipping did; all shaped as log_prob."""

    losses_BT: torch.Tensor
    log_ratio_BT: torch.Tensor
    clipped_BT: torch.Tensor
    dual_clipped_BT: torch.Tensor


def weighted_clipped_objective(
    log_prob_BT: torch.Tensor,
    old_log_prob_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    weights_BT: torch.Tensor | None,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    clip_c: float = 3.0,
    placement: WeightPlacement = "outside",
) -> ClippedObjective:
    """Per-token losses, to be minimised: the negated summand of Eq. 6.

    With r the probability ratio, A the advantage and w the weight:

    - ``outside`` (released code): -w min(r A, clip(r) A). As w >= 0 this is the plain objective of the advantage w A,
      dual clip included, and so it is computed.
    - ``eq6``: -min(w r A, clip(r) A), Eq. 6 as printed. At r = 1 its gradient is A min(w, 1) for A > 0 and A max(w, 1)
      for A < 0: weights above one act on negative advantages only.

    Without weights (or with w = 1) both are Eq. 11. Dual clip bounds the loss of a negative advantage at clip_c |A|;
    under ``eq6`` at clip_c max(w, 1) |A|, for a bound that did not grow with w would stop the gradient at r = 1 once
    w > clip_c.

    Args:
        log_prob_BT, old_log_prob_BT: of the taken tokens, now and when they were sampled.
        advantages_BT: by token.
        weights_BT: by token, >= 0; None: none, or folded into the advantages already. No gradient flows through them.
        clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high].
        clip_c: dual clip, above 1.

    Raises:
        ValueError: unknown placement, or clip_c not above 1.
    """
    if placement not in get_args(WeightPlacement):
        raise ValueError(f"objective: placement {placement!r} is unknown, choose one of outside, eq6")
    if not clip_c > 1.0:
        raise ValueError(f"objective: clip_c is {clip_c}, dual clip needs a bound above 1")
    if weights_BT is not None:
        weights_BT = weights_BT.detach()
    if weights_BT is not None and placement == "outside":
        advantages_BT = advantages_BT * weights_BT

    log_ratio_BT = (log_prob_BT - old_log_prob_BT).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio_BT = log_ratio_BT.exp()
    unclipped_BT = -advantages_BT * ratio_BT
    clipped_BT = -advantages_BT * ratio_BT.clamp(1 - clip_low, 1 + clip_high)
    bound_BT = -advantages_BT * clip_c
    if weights_BT is not None and placement == "eq6":
        unclipped_BT = unclipped_BT * weights_BT
        bound_BT = bound_BT * weights_BT.clamp(min=1.0)
    larger_BT = torch.maximum(unclipped_BT, clipped_BT)
    negative_BT = advantages_BT < 0
    losses_BT = torch.where(negative_BT, torch.minimum(bound_BT, larger_BT), larger_BT)
    return ClippedObjective(losses_BT, log_ratio_BT, clipped_BT > unclipped_BT, (larger_BT > bound_BT) & negative_BT)


def token_mean(values_BT: torch.Tensor, mask_BT: torch.Tensor, loss_agg_mode: str = "token-mean") -> torch.Tensor:
    """Sum over the masked tokens / their number, the normaliser of Eq. 6; what the mask leaves out may be NaN.

    Raises ValueError for a loss_agg_mode other than token-mean.
    """
    if loss_agg_mode != "token-mean":
        raise ValueError(
            f"objective: loss_agg_mode {loss_agg_mode!r} needs an aggregate function, only token-mean is built in"
        )
    return (torch.where(mask_BT.bool(), values_BT, 0.0) * mask_BT).sum() / mask_BT.sum()


def tw_grpo_policy_loss(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
    *,
    weights: torch.Tensor | None = None,
    placement: WeightPlacement = "outside",
    aggregate: Callable[[torch.Tensor, torch.Tensor, str], torch.Tensor] = token_mean,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Policy loss in the signature of verl (trainer/ppo/core_algos.py), and its clipping metrics.

    With no weights, and with weights of one, loss and gradient are those of verl's ``vanilla`` loss to the bit.

    Args:
        old_log_prob, log_prob, advantages, response_mask: [B, T].
        loss_agg_mode: handed to ``aggregate``.
        config: has clip_ratio, clip_ratio_low, clip_ratio_high (None: clip_ratio) and clip_ratio_c, as verl's
            ActorConfig.
        rollout_is_weights: [B, T], multiplies the per-token losses.
        weights, placement: as in ``weighted_clipped_objective``.
        aggregate: (losses, mask, loss_agg_mode) -> scalar loss.

    Raises:
        ValueError: no config, unknown placement, clip_ratio_c not above 1, a loss_agg_mode that aggregate refuses.
    """
    if config is None:
        raise ValueError("objective: tw_grpo_policy_loss needs a config that has clip_ratio, clip_ratio_low|high|c")
    clip_low, clip_high = (
        config.clip_ratio if side is None else side for side in (config.clip_ratio_low, config.clip_ratio_high)
    )
    objective = weighted_clipped_objective(
        log_prob, old_log_prob, advantages, weights, clip_low, clip_high, config.clip_ratio_c, placement
    )
    losses = objective.losses_BT
    if rollout_is_weights is not None:
        losses = losses * rollout_is_weights
    loss = aggregate(losses, response_mask, loss_agg_mode)

    with torch.no_grad():
        metrics = {
            name: (torch.where(response_mask.bool(), values.float(), 0.0).sum() / (response_mask.sum() + 1e-8)).item()
            for name, values in {
                "actor/pg_clipfrac": objective.clipped_BT,
                "actor/ppo_kl": -objective.log_ratio_BT,
                "actor/pg_clipfrac_lower": objective.dual_clipped_BT,
            }.items()
        }
    return loss, metrics
