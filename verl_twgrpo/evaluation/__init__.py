"""Accuracies with their intervals from what models wrote. Python and numpy, knows no verl; ``command`` is the CLI."""

from .intervals import PairedTest, bootstrap_mean, mcnemar_exact, paired_difference, sign_flip, wilson
from .metrics import Comparison, Score, compare, evaluate, stored_deviations
from .predictions import Prediction, Predictions, read_predictions
from .tasks import (
    Measure,
    MeasureDifference,
    ScoredRow,
    TaskComparison,
    TaskScore,
    compare_tasks,
    evaluate_tasks,
    score_rows,
    title,
)

__all__ = [
    "Comparison",
    "Measure",
    "MeasureDifference",
    "PairedTest",
    "Prediction",
    "Predictions",
    "Score",
    "ScoredRow",
    "TaskComparison",
    "TaskScore",
    "bootstrap_mean",
    "compare",
    "compare_tasks",
    "evaluate",
    "evaluate_tasks",
    "mcnemar_exact",
    "paired_difference",
    "read_predictions",
    "score_rows",
    "sign_flip",
    "stored_deviations",
    "title",
    "wilson",
]
