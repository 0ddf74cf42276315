"""Accuracies with their intervals from what models wrote. Python and numpy, knows no verl; ``command`` is the CLI."""

from .intervals import PairedTest, bootstrap_mean, mcnemar_exact, paired_difference, wilson
from .metrics import Comparison, Score, compare, evaluate, stored_deviations
from .predictions import Prediction, Predictions, read_predictions
from .summaries import StoredSummary, read_summaries

__all__ = [
    "Comparison",
    "PairedTest",
    "Prediction",
    "Predictions",
    "Score",
    "StoredSummary",
    "bootstrap_mean",
    "compare",
    "evaluate",
    "mcnemar_exact",
    "paired_difference",
    "read_predictions",
    "read_summaries",
    "stored_deviations",
    "wilson",
]
