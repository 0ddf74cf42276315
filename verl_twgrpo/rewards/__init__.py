"""Rewards for video questions: multiple answers (Eq. 7) and every other task type, a file each under ``tasks``.

Pure Python, knows no verl; ``manager`` is the face that verl's reward loop sees.
"""

from .answers import LENIENCIES, parse_answer
from .compose import Composition
from .registry import TASKS, TaskSettings, load_entry_points, load_own_tasks, task
from .routing import TaskMixture, check_gold, mixture_from_words, score, task_of, validate
from .scoring import (
    RewardSettings,
    compute_score,
    exact_reward,
    format_reward,
    score_response,
    soft_reward,
)
from .truth import read_truth

__all__ = [
    "LENIENCIES",
    "TASKS",
    "Composition",
    "RewardSettings",
    "TaskMixture",
    "TaskSettings",
    "check_gold",
    "compute_score",
    "exact_reward",
    "format_reward",
    "mixture_from_words",
    "parse_answer",
    "read_truth",
    "score",
    "score_response",
    "soft_reward",
    "task",
    "task_of",
    "validate",
]

load_own_tasks()
load_entry_points()
