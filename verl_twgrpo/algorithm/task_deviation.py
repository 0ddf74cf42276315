"""EMA-GRPO's deviation (OneThinker, arXiv 2512.03043): A = (R - mean of the group) / sigma of the task.

sigma_task^2 = m2 - m1^2 with m1, m2 exponential moving averages of the rewards' and squared rewards' means over a step,
updated before they are used. A group in which some |A| would pass ``limit`` is divided by its own deviation (Eq. 1).
So a task whose groups hardly differ is not blown up to the scale of one whose groups differ widely.

From the paper's text; the averages start at the first step's means, which it does not say.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch

from verl_twgrpo.rows import rows_by_group


class TaskMoments:
    """First and second moments of each task's rewards; ``state`` is what a checkpoint keeps."""

    def __init__(self, decay: float = 0.99) -> None:
        self.decay = decay
        self._moments: dict[str, tuple[float, float]] = {}

    @property
    def state(self) -> dict[str, list[float]]:
        return {task: list(moments) for task, moments in self._moments.items()}

    def restore(self, state: Mapping[str, Sequence[float]]) -> None:
        """Raises ``ValueError`` for something else than a ``state``."""
        try:
            self._moments = {str(task): (float(first), float(second)) for task, (first, second) in state.items()}
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"moments of rewards by task: cannot read {state!r}") from None

    def update(self, rewards_B: torch.Tensor, tasks: Sequence[str | None]) -> None:
        """Take in the rewards of one step; rows of task None are nobody's."""
        for task, rows in rows_by_group(tasks).items():
            rewards = rewards_B[rows].double()
            new = (rewards.mean().item(), rewards.square().mean().item())
            old = self._moments.get(task, new)
            self._moments[task] = tuple(  # type: ignore[assignment]
                self.decay * before + (1 - self.decay) * now for before, now in zip(old, new, strict=True)
            )

    def deviation(self, task: str) -> float:
        """sigma of a task's rewards."""
        first, second = self._moments[task]
        return max(second - first**2, 0.0) ** 0.5


def task_normalised_advantage(
    advantages_B: torch.Tensor,
    rewards_B: torch.Tensor,
    group_ids: Sequence[Hashable],
    tasks: Sequence[str | None],
    moments: TaskMoments,
    limit: float = 5.0,
) -> torch.Tensor:
    """Advantages by the deviation of their task, where no |A| of the group is above ``limit``; else as they are.

    Args:
        advantages_B: by the group's own deviation. rewards_B: of each response.
        tasks: of each response; None for rows that are nobody's, which leave their group as it is.
        moments: that have taken in this step's rewards.
    """
    normalised_B = advantages_B.clone()
    for rows in rows_by_group(group_ids).values():
        task, rewards = tasks[rows[0]], rewards_B[rows]
        if task is None or not rewards.min() < rewards.max():
            continue
        by_task = (rewards - rewards.mean()) / moments.deviation(task)
        if by_task.abs().max() <= limit:  # infinite where the task has no deviation
            normalised_B[rows] = by_task
    return normalised_B


def task_names(scores: Sequence[Mapping[str, Any] | None]) -> list[str | None]:
    """The task of each row by what the reward says of it; "" where it names none."""
    return [None if score is None else str(score.get("task") or "") for score in scores]
