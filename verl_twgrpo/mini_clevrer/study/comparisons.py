"""What the study answers: arms against GRPO and against their controls, with corrected tests and equivalence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verl_twgrpo.evaluation.intervals import TwoWayTest, holm, two_way_test
from verl_twgrpo.mini_clevrer.study.accuracy import paired_scores
from verl_twgrpo.mini_clevrer.study.arms import ARMS
from verl_twgrpo.mini_clevrer.study.runs import SEEN, Study
from verl_twgrpo.mini_clevrer.study.scalars import BASELINE

MARGIN = 0.015
"""Strict accuracy, as a fraction: smaller differences count as none."""

LEVEL = 0.05

CONTROLS = (("tw_grpo", "tw_grpo_live"), ("tw_grpo", "tw_grpo_shuffled"), ("tw_grpo", "tw_grpo_random"))
"""Is Eq. 4 more than a count of live responses, and does it matter which tokens have its weights?"""

BETTER, WORSE, EQUIVALENT, OPEN = "better", "worse", "equivalent", "open"


@dataclass(frozen=True)
class ComparisonRow:
    """First minus second in strict accuracy over all questions, a fraction, paired by question and seed.

    p_value: of no difference. p_corrected: after Holm, over all comparisons. p_equivalent: of a difference of the
    margin or more. verdict: by p_corrected, then by p_equivalent, at 5%.
    """

    first: str
    second: str
    step: int
    seeds: int
    n: int
    difference: float
    low: float
    high: float
    p_value: float
    p_corrected: float
    p_equivalent: float
    verdict: str


def comparison_rows(study: Study) -> list[ComparisonRow]:
    """Every arm against ``BASELINE``, then ``CONTROLS``, over the seeds that both have, at their last common step."""
    pairs = [(arm, BASELINE) for arm in ARMS if arm != BASELINE] + list(CONTROLS)
    found: list[tuple[tuple[str, str], int, np.ndarray, TwoWayTest]] = []
    for first, second in pairs:
        scores = paired_scores(study, (first, SEEN), (second, SEEN))
        if scores is not None:
            step, strict_SN, _ = scores
            found.append(((first, second), step, strict_SN, two_way_test(strict_SN, MARGIN)))
    corrected = holm([test.p_value for *_, test in found])
    rows = []
    for (names, step, strict_SN, test), p_corrected in zip(found, corrected, strict=True):
        seeds, n = strict_SN.shape
        means = (test.difference, test.low, test.high)
        tests = (test.p_value, p_corrected, test.p_equivalent)
        rows.append(ComparisonRow(*names, step, seeds, n, *means, *tests, _verdict(test, p_corrected)))
    return rows


def _verdict(test: TwoWayTest, p_corrected: float) -> str:
    if p_corrected < LEVEL:
        return BETTER if test.difference > 0 else WORSE
    return EQUIVALENT if test.p_equivalent < LEVEL else OPEN


def wanted_order(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """For the figure: by difference within those against ``BASELINE``, then the controls as they are."""
    against = sorted((row for row in rows if row.second == BASELINE), key=lambda row: -row.difference)
    return [*against, *(row for row in rows if row.second != BASELINE)]
