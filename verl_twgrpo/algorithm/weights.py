"""From a group's divergence to the weight of each token position (Eq. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from verl_twgrpo.algorithm.divergence import DivergenceKind, check_kind, row_lengths

WeightForm = Literal["one_plus", "eq5"]
WeightScope = Literal["all", "content", "padding", "none"]

# A row's disagreement that is only noise: identical rows, padded differently and computed in bfloat16, come out up to
# 5e-3 nats apart a row (SmolLM2, recipes/smollm2_weights). Rows that say different things: 0.1 nats and more.
NOISE_NATS_PER_ROW = 1e-2

# The released code adds this to the range it divides by.
RELEASED_EPS = 1e-8


def degenerate_range(kind: DivergenceKind, group_size: int, vocabulary_size: int | None = None) -> float:
    """Range of a divergence over positions below which a group says nothing, in the divergence's own unit.

    ``jsd`` sums nats over the rows; ``released`` sums d^2 / 2 over the vocabulary, so that it needs vocabulary_size;
    ``live`` is a share of its bound.

    Raises ValueError for ``released`` without vocabulary_size, and for an unknown kind.
    """
    check_kind(kind)
    if kind == "jsd":
        return NOISE_NATS_PER_ROW * group_size
    if kind == "live":
        return NOISE_NATS_PER_ROW
    if vocabulary_size is None:
        raise ValueError("token_weights: kind 'released' grows with the vocabulary, give vocabulary_size")
    return NOISE_NATS_PER_ROW * vocabulary_size


def token_weights(
    divergence_T: torch.Tensor,
    lengths_G: Sequence[int] | torch.Tensor,
    alpha: float = 0.7,
    weight: WeightForm = "one_plus",
    scope: WeightScope = "all",
    kind: DivergenceKind = "jsd",
    vocabulary_size: int | None = None,
) -> torch.Tensor:
    """Weight of each position of a group, the same for all its rows.

    n is the min-max normalised divergence: minimum and maximum are taken over the positions in scope, and positions out
    of scope have weight 1. Where the divergence ranges over less than ``degenerate_range`` in scope (identical
    responses, one position, float noise), normalising would blow noise up to the full range: all weights are 1.

    Args:
        divergence_T: by position, from ``group_divergence`` or ``chunked_group_divergence``.
        lengths_G: tokens in each row; max(lengths_G) == T.
        alpha: 0.7 in the paper; 0 gives weights of exactly 1 in the form ``one_plus``.
        weight: ``one_plus``: 1 + alpha n, the reading under which the paper's "no zero weights" and "alpha = 0 is no
            weighting" hold (released code: a = 1.70 = 1 + alpha). ``eq5``: (1 + alpha) n, Eq. 5 as printed.
        scope: Table A2: ``all`` positions; ``content``: those where every row is live; ``padding``: those where some
            row has ended; ``none``.
        kind: of divergence_T.
        vocabulary_size: needed for kind ``released``.

    Returns:
        weights_T, float32; gradients flow to divergence_T.

    Raises:
        ValueError: unknown names, or a divergence_T that does not fit lengths_G.
    """
    lengths = row_lengths(lengths_G)
    if weight not in get_args(WeightForm):
        raise ValueError(
            f"token_weights: weight {weight!r} is unknown, choose one of {', '.join(get_args(WeightForm))}"
        )
    if scope not in get_args(WeightScope):
        raise ValueError(f"token_weights: scope {scope!r} is unknown, choose one of {', '.join(get_args(WeightScope))}")
    T = max(lengths)
    if divergence_T.shape != (T,):
        raise ValueError(
            f"token_weights: divergence_T has shape {tuple(divergence_T.shape)}, expected [{T}], the longest row"
        )
    threshold = degenerate_range(kind, len(lengths), vocabulary_size)

    divergence_T = divergence_T.float()
    first, end = {"all": (0, T), "content": (0, min(lengths)), "padding": (min(lengths), T), "none": (0, 0)}[scope]
    weights_T = torch.ones_like(divergence_T)
    if first == end:
        return weights_T
    in_scope = divergence_T[first:end]
    low, high = in_scope.aminmax()
    span = high - low
    informative = span >= threshold
    normalised = (in_scope - low) / torch.where(informative, span + (RELEASED_EPS if kind == "released" else 0.0), 1.0)
    scaled = 1.0 + alpha * normalised if weight == "one_plus" else (1.0 + alpha) * normalised
    weighted = torch.where(informative, scaled, 1.0)
    return torch.cat([weights_T[:first], weighted, weights_T[end:]])
