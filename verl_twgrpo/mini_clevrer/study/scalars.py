"""What verl logged in the study's runs: curves over steps, seconds by phase, and whether alpha = 0 follows GRPO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from verl_twgrpo.mini_clevrer.study.runs import Study, StudyRun

BASELINE = "grpo_soft"
FOLLOWER = "alpha_0"

# column of curves.csv -> scalar of verl's logger
CURVES = {
    "reward": "critic/score/mean",
    "reward_spread": "tw_grpo/group_reward_std",
    "response_length": "response_length/mean",
    "strict": "tw_grpo/accuracy",
    "soft": "tw_grpo/soft_accuracy",
    "format": "tw_grpo/format",
    "entropy": "actor/entropy",
    "weight_mean": "tw_grpo/weight_mean",
    "tail_weight_share": "tw_grpo/tail_weight_share",
}

PHASES = (
    *("gen", "old_log_prob", "tw_grpo", "tw_grpo_head_pass", "tw_grpo_dump"),
    *("adv", "update_actor", "update_weights", "step"),
)
"""Timers ``timing_s/*`` of a step. tw_grpo and tw_grpo_head_pass run inside old_log_prob, tw_grpo_dump inside adv."""

WEIGHTS, STEP, STEP_WITHOUT_GEN = "weights", "step", "step without gen"
WEIGHT_PHASES = ("tw_grpo", "tw_grpo_head_pass", "tw_grpo_dump")
SKIPPED = 2
"""Steps at a run's start that are not timed: caches and kernels warm up."""

FOLLOWED = {
    "reward": "critic/score/mean",
    "response_length": "response_length/mean",
    "grad_norm": "actor/grad_norm",
    "pg_loss": "actor/pg_loss",
}


@dataclass(frozen=True)
class CurveRow:
    """One training step of one run. Means over its rollouts; lengths in tokens, entropy in nats; None: not logged."""

    arm: str
    seed: int | None
    step: int
    reward: float | None
    reward_spread: float | None
    response_length: float | None
    strict: float | None
    soft: float | None
    format: float | None
    entropy: float | None
    weight_mean: float | None
    tail_weight_share: float | None


@dataclass(frozen=True)
class TimingRow:
    """Seconds that a phase takes in a step of one arm: medians over a run's steps, then over runs (low, high: range).

    share_of_step, share_without_gen: the phase over the whole step, and over the step without gen, in the same way.
    ratio: over the same phase of ``BASELINE``, median over the seeds that both have (low, high: range).
    """

    arm: str
    phase: str
    runs: int
    steps: int
    seconds: float
    seconds_low: float
    seconds_high: float
    share_of_step: float
    share_without_gen: float
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None


@dataclass(frozen=True)
class FollowsRow:
    """``FOLLOWER`` against ``BASELINE`` with the same seed, over the steps that both logged.

    first_difference: first step at which a scalar of ``FOLLOWED`` differs, None if none does; then the largest
    absolute difference of each (None: not logged by both). equal_answers: share of validation answers with the same
    text at the last step that both validated, of n.
    """

    seed: int | None
    steps: int
    first_difference: int | None
    reward: float | None
    response_length: float | None
    grad_norm: float | None
    pg_loss: float | None
    validation_step: int | None
    n: int
    equal_answers: float | None


def curve_rows(study: Study) -> list[CurveRow]:
    """Every training step of every run."""
    return [
        CurveRow(run.arm, run.seed, step, *(run.scalars.get(name, {}).get(step) for name in CURVES.values()))
        for arm in study.arms()
        for run in study.of(arm)
        for step in _steps(run)
    ]


def timing_rows(study: Study) -> list[TimingRow]:
    """Every phase of every arm that timed it."""
    timed = {arm: {run.seed: step_seconds(run.scalars) for run in study.of(arm)} for arm in study.arms()}
    rows = []
    for arm, runs in timed.items():
        for phase in (*PHASES, WEIGHTS, STEP_WITHOUT_GEN):
            by_seed = {seed: seconds for seed, seconds in runs.items() if seconds.get(phase)}
            if not by_seed:
                continue
            medians = {seed: median(seconds[phase].values()) for seed, seconds in by_seed.items()}
            shares = [
                median(
                    median(value / seconds[whole][step] for step, value in seconds[phase].items())
                    for seconds in by_seed.values()
                )
                for whole in (STEP, STEP_WITHOUT_GEN)
            ]
            baseline = {
                seed: median(seconds[phase].values())
                for seed, seconds in timed.get(BASELINE, {}).items()
                if seed in medians and seconds.get(phase)
            }
            ratios = [medians[seed] / seconds for seed, seconds in baseline.items() if seconds]
            rows.append(
                TimingRow(
                    arm,
                    phase,
                    len(medians),
                    sum(len(seconds[phase]) for seconds in by_seed.values()),
                    *_median_and_range(medians.values()),
                    *shares,
                    *(_median_and_range(ratios) if ratios else (None, None, None)),
                )
            )
    return rows


def step_seconds(scalars: Mapping[str, Mapping[int, float]]) -> dict[str, dict[int, float]]:
    """Seconds by phase and step, without the first ``SKIPPED`` steps of the run.

    verl's timer of a step ends before validation, but spans the saving of a checkpoint, which is taken off
    (verl/trainer/ppo/v1/trainer_base.py, fit). ``WEIGHTS`` is all that token weighting adds to a step: its head pass,
    of which verl's own log-probs would need a part, the weights, and their dump. ``STEP_WITHOUT_GEN`` leaves out the
    rollouts, for which verl looks every two seconds.
    """
    timers = {phase: scalars.get(f"timing_s/{phase}", {}) for phase in PHASES}
    saving = scalars.get("timing_s/save_checkpoint", {})
    steps = [step for step in sorted(timers[STEP])[SKIPPED:] if step in timers["gen"]]
    seconds = {phase: {step: timer[step] for step in steps if step in timer} for phase, timer in timers.items()}
    seconds[STEP] = {step: value - saving.get(step, 0.0) for step, value in seconds[STEP].items()}
    seconds[STEP_WITHOUT_GEN] = {step: value - seconds["gen"][step] for step, value in seconds[STEP].items()}
    seconds[WEIGHTS] = {
        step: sum(seconds[phase].get(step, 0.0) for phase in WEIGHT_PHASES)
        for step in steps
        if step in seconds["tw_grpo"]
    }
    return seconds


def follows_rows(study: Study) -> list[FollowsRow]:
    """Every seed of which ``FOLLOWER`` and ``BASELINE`` both have a run: with alpha = 0 they should be one."""
    baseline = {run.seed: run for run in study.of(BASELINE)}
    return [_follows(run, baseline[run.seed]) for run in study.of(FOLLOWER) if run.seed in baseline]


def _follows(run: StudyRun, other: StudyRun) -> FollowsRow:
    steps = sorted(set(_steps(run)) & set(_steps(other)))
    first: int | None = None
    largest: dict[str, Any] = {}
    for column, name in FOLLOWED.items():
        ours, theirs = (one.scalars.get(name, {}) for one in (run, other))
        distances = {step: abs(ours[step] - theirs[step]) for step in steps if step in ours and step in theirs}
        largest[column] = max(distances.values(), default=None)
        # not "> 0": a NaN differs from everything
        apart = [step for step, distance in distances.items() if distance != 0]
        first = min([*apart, *([] if first is None else [first])], default=None)
    shared = set(run.answers) & set(other.answers)
    last = max((step for step, _ in shared), default=None)
    equal = [
        ours == theirs
        for step, frames in shared
        if step == last
        for ours, theirs in zip(run.answers[step, frames].texts, other.answers[step, frames].texts, strict=True)
    ]
    share = sum(equal) / len(equal) if equal else None
    counts: dict[str, Any] = {"validation_step": last, "n": len(equal), "equal_answers": share}
    return FollowsRow(run.seed, len(steps), first, **largest, **counts)


def _steps(run: StudyRun) -> list[int]:
    """The training steps that a run logged; validation before training logs step 0 without a reward."""
    return sorted(run.scalars.get("critic/score/mean", {}))


def _median_and_range(values) -> tuple[float, float, float]:
    values = list(values)
    return median(values), min(values), max(values)
