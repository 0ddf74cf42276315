"""How much the rows of a group disagree about the next token, position by position: the plain definitions.

Three kinds, over the G rows of a group of which k are live (not yet ended) at position t:

- ``jsd``: Eq. 4 of the paper, sum_i KL(p_i || m) with m the mean of the G rows, an ended row counting as uniform 1/V.
  0 <= D_t <= k ln G + (G-k) ln(G/(G-k)), in nats.
- ``released``: the arithmetic of the authors' released code: d = clamp(mean_j z_j - z_i, -11, 11) over log-probs z,
  D_t = mean_i sum_v (exp(d) - d - 1). Grows with V.
- ``live``: our own. Against the uniform fill even rows that agree diverge, so that in a ragged tail D_t says mostly how
  many rows have ended: with each, ``jsd`` of rows that differ falls (measured on a language model in
  recipes/smollm2_weights, where ``released`` hardly follows, ruled as it is by a few positions). Here the mixture is
  that of the k live rows only, and the sum of their KL is divided by its bound k ln k: D_t lies in [0, 1] whatever k
  is, and is 0 for k = 1, where there is nobody to disagree with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch

DivergenceKind = Literal["jsd", "released", "live"]

# The released code clamps log-prob differences here, so that exp(d) of a token one row has ruled out stays finite.
RELEASED_CLAMP = 11.0

# Stands for the log-prob -inf of a masked column: exp gives exactly 0, and 0 * MASKED is 0 where 0 * -inf is NaN.
MASKED = -1e30


def check_kind(kind: str) -> None:
    """Raises ValueError unless ``kind`` names a divergence."""
    if kind not in get_args(DivergenceKind):
        raise ValueError(f"divergence: kind {kind!r} is unknown, choose one of {', '.join(get_args(DivergenceKind))}")


def row_lengths(lengths_G: Sequence[int] | torch.Tensor) -> list[int]:
    """Lengths of the rows of a group in tokens, as Python ints.

    Raises ValueError for an empty group or a negative length.
    """
    lengths = [int(n) for n in (lengths_G.tolist() if isinstance(lengths_G, torch.Tensor) else lengths_G)]
    if not lengths:
        raise ValueError("divergence: the group has no rows, give the length of each of its responses")
    if min(lengths) < 0:
        raise ValueError(f"divergence: row {lengths.index(min(lengths))} has negative length {min(lengths)}")
    return lengths


def group_divergence(
    log_probs_GTV: torch.Tensor, lengths_G: Sequence[int] | torch.Tensor, kind: DivergenceKind = "jsd"
) -> torch.Tensor:
    """Divergence of a group at each position, differentiable; it holds several [G, T, V] tensors, so for small inputs.

    Args:
        log_probs_GTV: next-token log-probs, float; what lies at and after a row's length is not read. Columns that are
            -inf in every live row of a position do not count in its V.
        lengths_G: tokens in each row; 0 is allowed (the row counts as ended from the start).
        kind: see the module's docstring; ``jsd`` is Eq. 4.

    Returns:
        divergence_T with T = max(lengths_G), float32 (float64 if the input is).

    Raises:
        ValueError: unknown kind, or shapes and lengths that disagree.
    """
    check_kind(kind)
    lengths = row_lengths(lengths_G)
    G, T = len(lengths), max(lengths)
    if log_probs_GTV.dim() != 3 or log_probs_GTV.shape[0] != G or log_probs_GTV.shape[1] < T:
        raise ValueError(
            f"divergence: log_probs_GTV has shape {tuple(log_probs_GTV.shape)}, expected [{G}, at least {T}, V] for "
            f"{G} rows of at most {T} tokens"
        )
    log_probs_GTV = log_probs_GTV[:, :T]
    if log_probs_GTV.dtype != torch.float64:
        log_probs_GTV = log_probs_GTV.float()

    live_GT = torch.arange(T, device=log_probs_GTV.device) < torch.tensor(lengths, device=log_probs_GTV.device)[:, None]
    finite_GTV = (log_probs_GTV > -math.inf) & live_GT[..., None]
    log_probs_GTV = torch.where(finite_GTV, log_probs_GTV, MASKED)
    counted_TV = finite_GTV.any(0)
    log_uniform_T1 = -counted_TV.sum(-1, keepdim=True).to(log_probs_GTV.dtype).log()
    filled_GTV = torch.where(live_GT[..., None] | ~counted_TV, log_probs_GTV, log_uniform_T1)

    if kind == "released":
        difference_GTV = (filled_GTV.mean(0) - filled_GTV).clamp(-RELEASED_CLAMP, RELEASED_CLAMP)
        return ((torch.expm1(difference_GTV) - difference_GTV) * counted_TV).sum(-1).mean(0)
    if kind == "jsd":
        return _sum_of_kl_to_mixture(filled_GTV, torch.full_like(live_GT[0], G, dtype=filled_GTV.dtype))
    live_T = live_GT.sum(0).to(log_probs_GTV.dtype)
    bound_T = torch.where(live_T > 1, live_T * live_T.log(), 1.0)
    return torch.where(live_T > 1, _sum_of_kl_to_mixture(log_probs_GTV, live_T) / bound_T, 0.0)


def _sum_of_kl_to_mixture(log_probs_GTV: torch.Tensor, rows_T: torch.Tensor) -> torch.Tensor:
    """sum_i KL(p_i || m) with m = sum_i p_i / rows; never below 0 (Gibbs), so rounding is cut off there."""
    log_mixture_TV = torch.logsumexp(log_probs_GTV, 0) - rows_T.log()[:, None]
    return (log_probs_GTV.exp() * (log_probs_GTV - log_mixture_TV)).sum((0, 2)).clamp(min=0)
