"""The curves of a page's overview, from what was logged; where nothing was, from the dumps."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from verl_twgrpo.report import series
from verl_twgrpo.report.reading import Run

from .script import rounded


@dataclass(frozen=True)
class Chart:
    """One plot. metrics: logged names, or patterns of such. instead: from the dumps, where none was logged."""

    title: str
    metrics: tuple[str, ...]
    instead: Callable[[Run], series.Series | None] | None = None
    unit: str = ""


CHARTS = (
    Chart("Reward, mean", ("critic/score/mean",), series.reward_mean),
    Chart("Reward, spread within a group", ("tw_grpo/group_reward_std",), series.reward_spread),
    Chart("Groups without spread", ("tw_grpo/groups_without_spread",), unit="share"),
    Chart("Accuracy of training responses", ("tw_grpo/accuracy", "tw_grpo/soft_accuracy")),
    Chart("Format", ("tw_grpo/format",)),
    Chart("Accuracy on the validation set", ("val-core/*/acc/mean@*", "val-aux/*/soft_accuracy/mean@*")),
    Chart("Response length", ("response_length/mean", "response_length/max"), series.response_length, "tokens"),
    Chart("Token weight", ("tw_grpo/weight_mean", "tw_grpo/weight_max")),
    Chart("Share of the weight in the padding region", ("tw_grpo/tail_weight_share",)),
    Chart("Divergence D_t, mean", ("tw_grpo/divergence_mean",), series.divergence),
    Chart("How much log-probs depend on the video, |d|", ("tw_grpo/contrast_*", "tw_grpo/video_dependence*")),
    Chart(
        "Rollout and actor: difference of probabilities",
        ("training/rollout_probs_diff_mean", "training/rollout_probs_diff_max"),
    ),
    Chart("Entropy", ("actor/entropy",)),
    Chart("Gradient norm", ("actor/grad_norm",)),
    Chart("KL to the reference", ("actor/kl_loss", "critic/kl", "actor/ppo_kl")),
    Chart("Seconds by phase", ("timing_s/*",), unit="s"),
)


def charts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Every chart that any run has data for: title, unit, and its curves as run, metric, steps and values."""
    found = []
    for chart in CHARTS:
        curves = []
        for number, run in enumerate(runs):
            names = sorted(
                name for pattern in chart.metrics for name in run.scalars if fnmatch.fnmatchcase(name, pattern)
            )
            if names:
                by_step = {name: run.scalars[name] for name in names}
                curves += [_curve(number, name, list(values), values.values()) for name, values in by_step.items()]
            elif chart.instead and (dumped := chart.instead(run)) is not None:
                curves.append(_curve(number, f"from the {dumped.source}", dumped.steps.tolist(), dumped.values))
        if curves:
            found.append({"title": chart.title, "unit": chart.unit, "curves": curves})
    return found


def _curve(run: int, name: str, steps: list[int], values: Any) -> dict[str, Any]:
    return {"run": run, "name": name, "steps": steps, "values": rounded(values, 5)}
