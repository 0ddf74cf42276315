"""A run at a glance: one line a training step, from the scalars that verl's tensorboard logger wrote."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from verl_twgrpo.evaluation.intervals import bootstrap_mean, wilson
from verl_twgrpo.run_folder import read_scalars

# column -> scalar of verl's logger
COLUMNS = {
    "reward": "critic/rewards/mean",
    "spread": "tw_grpo/group_reward_std",
    "accuracy": "tw_grpo/accuracy",
    "soft": "tw_grpo/soft_accuracy",
    "w mean": "tw_grpo/weight_mean",
    "w max": "tw_grpo/weight_max",
    "tail share": "tw_grpo/tail_weight_share",
    "format": "tw_grpo/format",
    "seconds": "timing_s/step",
    "weights s": "timing_s/tw_grpo_head_pass",
}

BARS = "▁▂▃▄▅▆▇█"
# what before -> after shows -> column of verl's validation dump
HELD_OUT = {"accuracy": "accuracy", "reward": "score"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder of a run."""
    parser.add_argument("run_dir", type=Path, help="folder of a run, e.g. outputs/demo/run")


def run(args: argparse.Namespace) -> int:
    """Print the table, what became of the held-out questions, and what the run wrote.

    Raises ``ValueError`` for a folder without logged metrics.
    """
    scalars = read_scalars(args.run_dir / "tensorboard")
    if not scalars:
        raise ValueError(f"{args.run_dir}: no metrics in its tensorboard/; give the folder of a run that made steps")
    print(step_table(scalars))
    print()
    print("\n".join(before_and_after(args.run_dir / "validation")))
    print()
    for path in sorted(args.run_dir.iterdir()):
        if path.is_dir():
            print(f"{path}: {sum(1 for file in path.rglob('*') if file.is_file())} files")
    return 0


def step_table(scalars: dict[str, dict[int, float]]) -> str:
    """The columns of ``COLUMNS`` for every training step; a dash where a step did not log one."""
    steps = sorted(scalars.get("training/global_step", {}))
    lines = ["step " + " ".join(f"{name:>10}" for name in COLUMNS)]
    for step in steps:
        values = (scalars.get(scalar, {}).get(step) for scalar in COLUMNS.values())
        lines.append(f"{step:>4} " + " ".join(f"{'-' if v is None else format(v, '.3f'):>10}" for v in values))
    trends = (sparkline([scalars.get(scalar, {}).get(step) for step in steps]) for scalar in COLUMNS.values())
    lines.append("     " + " ".join(f"{trend:>10}" for trend in trends))
    return "\n".join(lines)


def sparkline(values: Sequence[float | None], width: int = 10) -> str:
    """The course of a metric in at most ``width`` characters, low to high; values that are missing are left out."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    parts = np.array_split(np.asarray(known), min(width, len(known)))
    means = np.array([part.mean() for part in parts])
    span = means.max() - means.min()
    heights = (means - means.min()) / span if span else np.zeros(len(means))
    return "".join(BARS[round(height * (len(BARS) - 1))] for height in heights)


def before_and_after(folder: Path) -> list[str]:
    """What the first and the last validation say, with 95% intervals; a line that says so where there are not two."""
    dumps = sorted((file for file in folder.glob("*.jsonl") if file.stem.isdigit()), key=lambda file: int(file.stem))
    if len(dumps) < 2:
        return [f"{folder}: fewer than two validations, nothing to compare"]
    first, last = dumps[0], dumps[-1]
    rows = [[json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in (first, last)]
    lines = [f"held-out questions (n = {len(rows[0])}), before -> after {last.stem} steps, 95% intervals"]
    for name, key in HELD_OUT.items():
        scores = [[float(row[key]) for row in dump] for dump in rows]
        if key == "accuracy":
            intervals = [wilson(round(sum(values)), len(values)) for values in scores]
        else:
            intervals = [bootstrap_mean(values, seed=0) for values in scores]
        (low, high), (after_low, after_high) = intervals
        before, after = (sum(values) / len(values) for values in scores)
        lines.append(
            f"  {name:<10} {before:.2f} [{low:.2f}, {high:.2f}] -> {after:.2f} [{after_low:.2f}, {after_high:.2f}]"
        )
    return lines
