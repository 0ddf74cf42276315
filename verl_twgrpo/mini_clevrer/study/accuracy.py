"""Held-out accuracies of the study: of each run, of each arm with intervals, controls, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from verl_twgrpo.evaluation.intervals import two_way_interval
from verl_twgrpo.mini_clevrer.study.arms import BEST_CONSTANT, BLIND, OBSERVED, START, UNIFORM
from verl_twgrpo.mini_clevrer.study.runs import BLANK, SEEN, Question, Study, StudyRun, score
from verl_twgrpo.rewards.answers import LETTERS

PAIRS = (
    ("grpo_soft", "grpo_exact"),
    ("tw_grpo", "grpo_soft"),
    ("tw_grpo_released", "grpo_soft"),
    ("tw_grpo_live", "grpo_soft"),
    ("tw_grpo", "tw_grpo_released"),
    ("alpha_0", "grpo_soft"),
)
"""Arms whose difference, first minus second, the study is about."""


@dataclass(frozen=True)
class AccuracyRow:
    """Strict and soft accuracy of one run at one step, fractions, over n questions of a kind."""

    arm: str
    seed: int | None
    step: int
    frames: str
    questions: str
    n: int
    strict: float
    soft: float


@dataclass(frozen=True)
class SummaryRow:
    """Mean accuracies of an arm or a control with 95% intervals, fractions. interval: what was resampled."""

    arm: str
    step: int | None
    frames: str
    questions: str
    seeds: int | None
    n: int
    strict: float
    strict_low: float
    strict_high: float
    soft: float
    soft_low: float
    soft_high: float
    interval: str
    note: str = ""


@dataclass(frozen=True)
class DifferenceRow:
    """First minus second, paired by question and, where both have them, by seed; 95% intervals, fractions."""

    first: str
    first_frames: str
    second: str
    second_frames: str
    step: int
    questions: str
    seeds: int
    n: int
    strict: float
    strict_low: float
    strict_high: float
    soft: float
    soft_low: float
    soft_high: float
    interval: str


def accuracy_rows(study: Study) -> list[AccuracyRow]:
    """Every run at every step that was validated."""
    masks = study.masks()
    rows = []
    for run in study.runs:
        for (step, frames), answers in sorted(run.answers.items()):
            for kind, mask_N in masks.items():
                means = (float(scores_N[mask_N].mean()) for scores_N in (answers.strict_N, answers.soft_N))
                rows.append(AccuracyRow(run.arm, run.seed, step, frames, kind, int(mask_N.sum()), *means))
    return rows


def summary_rows(study: Study) -> list[SummaryRow]:
    """Every arm at the last step that all its seeds have, the start model, and the controls, by kind of question."""
    rows = []
    for arm in (START, *study.arms()):
        runs = study.of(arm)
        for frames in (SEEN, BLANK):
            step = last_step([(run, frames) for run in runs])
            if step is not None:
                strict_SN, soft_SN = _stacked(runs, step, frames)
                for kind, seeds, n, means in _by_kind(study, strict_SN, soft_SN):
                    resampled = _resampled(seeds)
                    seeds_or_none = None if arm == START else seeds
                    rows.append(SummaryRow(arm, step, frames, kind, seeds_or_none, n, interval=resampled, **means))
    return rows + control_rows(study)


def control_rows(study: Study) -> list[SummaryRow]:
    """What one gets without looking, and with perfect sight of what happened instead of what would have happened.

    best_constant: the answer set that does best, chosen for each metric and kind of question with the truth at hand,
    so that it is the highest bar of its sort. uniform_set: expectation over all non-empty sets of the options.
    copies_observed: the letters that held in the video as it was; none is no answer.
    """
    uniform = [uniform_scores(question) for question in study.questions]
    strict_N, soft_N = (np.array(column) for column in zip(*uniform, strict=True))
    observed_N = score([question.observed for question in study.questions], study.questions)
    constants = {
        constant: score([constant] * len(study.questions), study.questions)
        for constant in _sets(max(question.options for question in study.questions))
    }
    rows = []
    for kind, mask_N in study.masks().items():
        best = [_best(constants, metric, mask_N) for metric in (0, 1)]
        names = [",".join(sorted(constant)) for constant in best]
        controls = {
            BEST_CONSTANT: (constants[best[0]][0], constants[best[1]][1], f"strict {names[0]}; soft {names[1]}"),
            UNIFORM: (strict_N, soft_N, ""),
            OBSERVED: (*observed_N, ""),
        }
        for name, (strict, soft, note) in controls.items():
            means = _means(strict[None, mask_N], soft[None, mask_N])
            frames = SEEN if name == OBSERVED else BLANK
            n = int(mask_N.sum())
            rows.append(SummaryRow(name, None, frames, kind, None, n, interval=_resampled(1), note=note, **means))
    return rows


def difference_rows(study: Study) -> list[DifferenceRow]:
    """Every arm minus the start model, ``PAIRS`` over the seeds that both have, and frames seen minus frames blank.

    Each at the last step that all runs of the difference have.
    """
    shown = {arm: BLANK if arm == BLIND else SEEN for arm in study.arms()}
    pairs = [((arm, frames), (START, frames)) for arm, frames in shown.items()]
    pairs += [((first, SEEN), (second, SEEN)) for first, second in PAIRS]
    pairs += [((arm, SEEN), (arm, BLANK)) for arm in (START, "grpo_soft", "tw_grpo")]
    pairs += [(("grpo_soft", SEEN), (BLIND, BLANK))]
    return [row for first, second in pairs for row in _differences(study, first, second)]


def last_step(runs: Sequence[tuple[StudyRun, str]]) -> int | None:
    """The last step at which each of the runs answered with the frames beside it; None if there is none."""
    steps = [{step for step, shown in run.answers if shown == frames} for run, frames in runs]
    return max(set.intersection(*steps), default=None) if steps else None


def uniform_scores(question: Question) -> tuple[float, float]:
    """Expected strict and soft accuracy of a set drawn uniformly from the non-empty sets of the options.

    One set in 2^k - 1 is the truth; of the 2^m - 1 non-empty sets of the m true letters, the mean share of true
    letters, summed up, is 2^(m-1).
    """
    sets = 2**question.options - 1
    return 1 / sets, 2 ** (len(question.truth) - 1) / sets


def paired_scores(
    study: Study, first: tuple[str, str], second: tuple[str, str]
) -> tuple[int, np.ndarray, np.ndarray] | None:
    """The last step that all runs of both (arm, frames) have, and first minus second, strict and soft, [S, N] each.

    Paired by question and, where both have them, by seed; None where there is no such pair.
    """
    (first_arm, first_frames), (second_arm, second_frames) = first, second
    ours, theirs = ({run.seed: run for run in study.of(arm)} for arm in (first_arm, second_arm))
    if START in (first_arm, second_arm):  # one model for all seeds
        pairs = [(run, other) for run in ours.values() for other in theirs.values()]
    else:
        pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    if second_arm == START and first_arm != START:
        step = last_step([(run, first_frames) for run, _ in pairs])
        step_of_second = last_step([(other, second_frames) for _, other in pairs])
    else:
        step = step_of_second = last_step(
            [(run, first_frames) for run, _ in pairs] + [(other, second_frames) for _, other in pairs]
        )
    if step is None or step_of_second is None:
        return None
    strict_SN, soft_SN = (
        a_SN - b_SN
        for a_SN, b_SN in zip(
            _stacked([run for run, _ in pairs], step, first_frames),
            _stacked([other for _, other in pairs], step_of_second, second_frames),
            strict=True,
        )
    )
    return step, strict_SN, soft_SN


def _differences(study: Study, first: tuple[str, str], second: tuple[str, str]) -> list[DifferenceRow]:
    scores = paired_scores(study, first, second)
    if scores is None:
        return []
    step, strict_SN, soft_SN = scores
    return [
        DifferenceRow(*first, *second, step, kind, seeds, n, interval=_resampled(seeds), **means)
        for kind, seeds, n, means in _by_kind(study, strict_SN, soft_SN)
    ]


def _by_kind(study: Study, strict_SN: np.ndarray, soft_SN: np.ndarray) -> list[tuple[str, int, int, dict[str, Any]]]:
    """Kind, seeds, questions, and mean, low and high of strict and of soft, by column."""
    return [
        (kind, len(strict_SN), int(mask_N.sum()), _means(strict_SN[:, mask_N], soft_SN[:, mask_N]))
        for kind, mask_N in study.masks().items()
    ]


def _means(strict_SN: np.ndarray, soft_SN: np.ndarray) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, scores_SN in (("strict", strict_SN), ("soft", soft_SN)):
        low, high = two_way_interval(scores_SN)
        columns |= {name: float(scores_SN.mean()), f"{name}_low": low, f"{name}_high": high}
    return columns


def _stacked(runs: Sequence[StudyRun], step: int, frames: str) -> tuple[np.ndarray, np.ndarray]:
    answers = [run.answers[step, frames] for run in runs]
    return np.stack([one.strict_N for one in answers]), np.stack([one.soft_N for one in answers])


def _resampled(seeds: int) -> str:
    return "seeds and questions" if seeds > 1 else "questions"


def _best(
    constants: Mapping[frozenset[str], tuple[np.ndarray, np.ndarray]], metric: int, mask_N: np.ndarray
) -> frozenset[str]:
    return max(constants, key=lambda constant: constants[constant][metric][mask_N].mean())


def _sets(options: int) -> list[frozenset[str]]:
    return [frozenset(chosen) for size in range(1, options + 1) for chosen in combinations(LETTERS[:options], size)]
