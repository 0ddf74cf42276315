"""Make a weighting from its settings, and apply it to the groups of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, get_args

import torch

from verl_twgrpo.algorithm.weightings.base import WEIGHTINGS, Group, Weighting
from verl_twgrpo.algorithm.weightings.settings import check_choice

Normalise = Literal["none", "response", "batch"]
Control = Literal["none", "shuffled", "random"]


def make_weighting(name: str, settings: Mapping[str, Any] | None = None) -> Weighting:
    """The weighting of that name with its settings.

    Raises ``ValueError``: unknown name; an unknown setting or a bad value, beginning with the setting's name.
    """
    cls = WEIGHTINGS.get(name)
    settings = dict(settings or {})
    known = [field.name for field in fields(cls.Settings)]
    for key in settings:
        if key not in known:
            there = f"choose from {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{key}: weighting {name} has no such setting; {there}")
    return cls(cls.Settings(**settings))


def weigh_groups(
    weighting: Weighting,
    groups: Sequence[Group],
    normalise: Normalise = "none",
    control: Control = "none",
    seed: int = 0,
) -> int:
    """Set the ``weights`` of every group; returns at how many tokens a column that was read is not a number.

    Tokens outside the masks weigh 1, and so does all of a group in which a column has NaN or infinite values.

    Args:
        normalise: brings the mean weight of the model's own tokens to 1 over each ``response`` or over the ``batch``
            (all groups given); what weighs 0 altogether stays so.
        control: weights that no longer know their tokens. ``shuffled``: those of each response, permuted over its own
            tokens. ``random``: those of all groups, permuted over all of their own tokens: the same histogram.
        seed: of the control's draws, which differ from step to step.

    Raises:
        ValueError: an unknown choice; the weighting gave something else than one finite weight >= 0 per token.
    """
    check_choice("normalise", normalise, get_args(Normalise))
    check_choice("control", control, get_args(Control))
    broken = [_not_numbers(group, weighting.read_columns()) for group in groups]
    sound = [group for group, tokens in zip(groups, broken, strict=True) if not tokens]
    for group in groups:
        group.weights = [torch.ones(length) for length in group.lengths]
    with torch.no_grad():
        for group, weights in zip(sound, weighting.weigh_step(sound), strict=True):
            group.weights = [
                torch.where(mask, weights_L, 1.0)
                for mask, weights_L in zip(group.masks, _checked(weighting.name, group, weights), strict=True)
            ]
        if control != "none":
            _permute(sound, seed, within_response=control == "shuffled")
        if normalise != "none":
            _to_mean_one(sound, per_response=normalise == "response")
    return sum(broken)


def _permute(groups: Sequence[Group], seed: int, within_response: bool) -> None:
    """Overwrites weights of own tokens; the draws do not depend on the order in which the groups come."""
    ordered = sorted(groups, key=lambda group: group.number)
    responses = [(group, response) for group in ordered for response in range(len(group.masks))]
    pools = [[one] for one in responses] if within_response else [responses]
    generator = torch.Generator().manual_seed(seed * 1_000_003 + (ordered[0].step if ordered else 0))
    for pool in pools:
        own = [group.weights[response][group.masks[response]] for group, response in pool]
        if not own:
            continue
        weights = torch.cat(own)
        drawn = weights[torch.randperm(len(weights), generator=generator)].split([len(part) for part in own])
        for (group, response), part in zip(pool, drawn, strict=True):
            group.weights[response][group.masks[response]] = part


def _to_mean_one(groups: Sequence[Group], per_response: bool) -> None:
    own = [
        weights_L[mask]
        for group in groups
        for weights_L, mask in zip(group.weights, group.masks, strict=True)
        if mask.any()
    ]
    if not own:
        return
    of_batch = torch.cat(own).mean()
    for group in groups:
        for response, (weights_L, mask) in enumerate(zip(group.weights, group.masks, strict=True)):
            mean = weights_L[mask].mean() if per_response else of_batch
            if mask.any() and mean > 0:
                group.weights[response] = torch.where(mask, weights_L / mean, 1.0)


def _not_numbers(group: Group, columns: Sequence[str]) -> int:
    total = 0
    for response, mask in enumerate(group.masks):
        bad_L = torch.zeros_like(mask)
        for name in columns:
            bad_L |= ~group.columns[name][response].isfinite()
        total += int((bad_L & mask).sum())
    return total


def _checked(name: str, group: Group, weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    shapes = [tuple(weights_L.shape) for weights_L in weights]
    if shapes != [(length,) for length in group.lengths]:
        raise ValueError(f"weighting {name}: weights of shapes {shapes} for responses of {group.lengths} tokens")
    checked = [weights_L.detach().float() for weights_L in weights]
    for weights_L, mask in zip(checked, group.masks, strict=True):
        own = weights_L[mask]
        if not (own.isfinite() & (own >= 0)).all():
            raise ValueError(
                f"weighting {name}: weights of {own.min().item()} to {own.max().item()} in group {group.uid}; they "
                "must be finite and 0 or more"
            )
    return checked
