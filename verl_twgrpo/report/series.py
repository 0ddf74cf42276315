"""What the figures draw, as numbers by step and by position. Each series says where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .reading import Group, Run


@dataclass(frozen=True)
class Series:
    """One value per step. source: which file it comes from, in words."""

    steps: np.ndarray
    values: np.ndarray
    source: str


def reward_mean(run: Run) -> Series | None:
    """Mean reward over a step's responses (Fig. 3a's companion); None where no file has it."""
    return (
        _logged(run, "critic/score/mean")
        or _dumped(run, lambda groups: np.concatenate([group.rewards_G for group in groups]).mean())
        or _rolled_out(run, lambda groups: np.concatenate(groups).mean())
    )


def reward_spread(run: Run) -> Series | None:
    """Standard deviation of rewards within a group, mean over a step's groups (Fig. 3a); None where no file has it."""
    return (
        _logged(run, "tw_grpo/group_reward_std")
        or _dumped(run, lambda groups: np.mean([spread(group.rewards_G) for group in groups]))
        or _rolled_out(run, lambda groups: np.mean([spread(rewards) for rewards in groups]))
    )


def response_length(run: Run) -> Series | None:
    """Mean tokens of a step's responses (Fig. 3b); None where no file has it."""
    return _logged(run, "response_length/mean") or _dumped(
        run, lambda groups: np.concatenate([group.lengths_G for group in groups]).mean()
    )


def divergence(run: Run) -> Series | None:
    """Mean D_t over the positions at which every response of its group is alive, by step (Fig. A3).

    Without dumps: the logged mean over all tokens. None where no file has either.
    """
    dumped = _dumped(run, _content_divergence, "content only")
    if dumped is not None and np.isnan(dumped.values).all():
        dumped = None
    return dumped or _logged(run, "tw_grpo/divergence_mean", "all tokens")


def spread(rewards: Sequence[float] | np.ndarray) -> float:
    """Sample standard deviation, as the trainer logs it; 0 for a single response."""
    return float(np.std(rewards, ddof=min(1, len(rewards) - 1)))


def weights_by_position(groups: Sequence[Group]) -> tuple[np.ndarray, np.ndarray]:
    """Mean weight of a group's responses as [positions, samples], NaN past its longest response; shortest lengths."""
    weights = np.full((max(group.lengths_G.max() for group in groups), len(groups)), np.nan, dtype=np.float32)
    for sample, group in enumerate(groups):
        weights[: len(group.weights_T), sample] = group.weights_T
    return weights, np.array([group.lengths_G.min() for group in groups])


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred running mean over ``window`` steps; at the ends, over those that are there."""
    ones = np.ones(window)
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def _content_divergence(groups: Sequence[Group]) -> float:
    return np.concatenate([group.divergence_T[: group.lengths_G.min()] for group in groups]).mean()


def _logged(run: Run, name: str, note: str = "logged") -> Series | None:
    values = run.scalars.get(name)
    return _series(values, note) if values else None


def _dumped(run: Run, reduce: Callable[[list[Group]], Any], note: str = "dumped") -> Series | None:
    by_step: dict[int, list[Group]] = {}
    for group in run.groups:
        by_step.setdefault(group.step, []).append(group)
    return _series({step: reduce(groups) for step, groups in by_step.items()}, note) if by_step else None


def _rolled_out(run: Run, reduce: Callable[[list[list[float]]], Any]) -> Series | None:
    by_step = {step: list(groups.values()) for step, groups in run.rollout_rewards.items() if groups}
    return _series({step: reduce(groups) for step, groups in by_step.items()}, "rollouts") if by_step else None


def _series(values: dict[int, float], source: str) -> Series:
    steps = sorted(values)
    return Series(np.array(steps), np.array([values[step] for step in steps], dtype=float), source)
