"""Weights from a group's divergence (Eq. 5): positions where the responses disagree about the next token weigh more.

w_t = 1 + alpha n_t with n_t the divergence D_t, min-max normalised over the group's positions (arXiv 2505.24718, Eq. 4
and 5; the released code: a = 1.70 = 1 + alpha). ``weight=eq5`` is Eq. 5 as printed, (1 + alpha) n_t. The presets
``tw_grpo``, ``tw_grpo_released`` and ``live`` are this weighting with three kinds of divergence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from verl_twgrpo.algorithm.divergences import get_divergence, row_lengths
from verl_twgrpo.algorithm.weightings.base import WEIGHTINGS, Group, Weighting
from verl_twgrpo.algorithm.weightings.settings import check_choice, check_number

WeightForm = Literal["one_plus", "eq5"]
WeightScope = Literal["all", "content", "padding", "none"]


@dataclass(frozen=True)
class GroupDivergenceSettings:
    """Settings of ``group_divergence``; ``algorithm.tw_grpo`` has them itself, beside ``weighting``.

    divergence: D_t, the name of a registered divergence. alpha, weight, scope: as in ``token_weights``.
    """

    divergence: str = "jsd"
    alpha: float = 0.7
    weight: str = "one_plus"
    scope: str = "all"

    def __post_init__(self) -> None:
        try:
            get_divergence(self.divergence)
        except ValueError as error:
            raise ValueError(f"divergence={self.divergence!r}: {error}") from None
        check_number("alpha", self.alpha)
        check_choice("weight", self.weight, get_args(WeightForm))
        check_choice("scope", self.scope, get_args(WeightScope))


@WEIGHTINGS.register
class GroupDivergenceWeighting(Weighting):
    """w_t = 1 + alpha n_t (or (1 + alpha) n_t), the same for all responses at a position."""

    name = "group_divergence"
    Settings = GroupDivergenceSettings
    off = {"alpha": 0.0}

    @property
    def divergence(self) -> str:
        return self.settings.divergence

    @property
    def active(self) -> bool:
        return self.settings.alpha > 0 and self.settings.scope != "none"

    def weigh(self, group: Group) -> list[torch.Tensor]:
        settings = self.settings
        weights_T = token_weights(
            group.divergence_T,
            group.lengths,
            settings.alpha,
            settings.weight,
            settings.scope,
            settings.divergence,
            group.vocabulary_size,
            group.own_T,
        )
        return [weights_T[:length] for length in group.lengths]


def degenerate_range(kind: str, group_size: int, vocabulary_size: int | None = None) -> float:
    """Range of a divergence over positions below which a group says nothing, in the divergence's own unit.

    Raises ValueError for an unknown kind, and for one that grows with the vocabulary without vocabulary_size.
    """
    divergence = get_divergence(kind)
    if vocabulary_size is not None:
        return divergence.noise(group_size, vocabulary_size)
    one, two = (divergence.noise(group_size, V) for V in (1, 2))
    if one != two:
        raise ValueError(f"token_weights: kind {kind!r} grows with the vocabulary, give vocabulary_size")
    return one


def token_weights(
    divergence_T: torch.Tensor,
    lengths_G: Sequence[int] | torch.Tensor,
    alpha: float = 0.7,
    weight: WeightForm = "one_plus",
    scope: WeightScope = "all",
    kind: str = "jsd",
    vocabulary_size: int | None = None,
    own_T: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weight of each position of a group, the same for all its responses.

    n is the min-max normalised divergence: minimum and maximum are taken over the positions in scope, and positions out
    of scope have weight 1. Where the divergence ranges over less than ``degenerate_range`` in scope (identical
    responses, one position, float noise), normalising would blow noise up to the full range: all weights are 1.

    Args:
        divergence_T: by position, from ``group_divergence`` or ``chunked_group_divergence``.
        lengths_G: tokens of each response; max(lengths_G) == T.
        alpha: 0.7 in the paper; 0 gives weights of exactly 1 in the form ``one_plus``.
        weight: ``one_plus``: 1 + alpha n, the reading under which the paper's "no zero weights" and "alpha = 0 is no
            weighting" hold (released code: a = 1.70 = 1 + alpha). ``eq5``: (1 + alpha) n, Eq. 5 as printed.
        scope: Table A2: ``all`` positions; ``content``: those where every response is live; ``padding``: those where
            some response has ended; ``none``.
        kind: of divergence_T.
        vocabulary_size: needed for kind ``released``.
        own_T: positions that hold a token of the model's own, bool; others are out of scope. None: all do.

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
    divergence, threshold = get_divergence(kind), degenerate_range(kind, len(lengths), vocabulary_size)

    divergence_T = divergence_T.float()
    first, end = {"all": (0, T), "content": (0, min(lengths)), "padding": (min(lengths), T), "none": (0, 0)}[scope]
    weights_T = torch.ones_like(divergence_T)
    if first == end:
        return weights_T
    in_scope = divergence_T[first:end]
    own = None if own_T is None or own_T.all() else own_T[first:end]
    if own is not None and not own.any():
        return weights_T
    low, high = (in_scope if own is None else in_scope[own]).aminmax()
    span = high - low
    informative = span >= threshold
    normalised = (in_scope - low) / torch.where(informative, span + divergence.range_eps, 1.0)
    scaled = 1.0 + alpha * normalised if weight == "one_plus" else (1.0 + alpha) * normalised
    weighted = torch.where(informative if own is None else informative & own, scaled, 1.0)
    return torch.cat([weights_T[:first], weighted, weights_T[end:]])
