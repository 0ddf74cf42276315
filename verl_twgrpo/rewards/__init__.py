"""The multi-answer soft reward. Pure Python, knows no verl; ``manager`` is the face that verl's reward loop sees."""

from .answers import LENIENCIES, parse_answer
from .scoring import (
    RewardSettings,
    check_gold,
    compute_score,
    exact_reward,
    format_reward,
    score_response,
    soft_reward,
    validate,
)
from .truth import read_truth

__all__ = [
    "LENIENCIES",
    "RewardSettings",
    "check_gold",
    "compute_score",
    "exact_reward",
    "format_reward",
    "parse_answer",
    "read_truth",
    "score_response",
    "soft_reward",
    "validate",
]
