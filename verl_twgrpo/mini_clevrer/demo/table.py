"""A run at a glance: one line a training step, from the scalars that verl's tensorboard logger wrote."""

from __future__ import annotations

import argparse
from pathlib import Path

# column -> scalar of verl's logger
COLUMNS = {
    "reward": "critic/rewards/mean",
    "spread": "tw_grpo/group_reward_std",
    "accuracy": "tw_grpo/accuracy",
    "soft": "tw_grpo/soft_accuracy",
    "w mean": "tw_grpo/weight_mean",
    "w max": "tw_grpo/weight_max",
    "tail share": "tw_grpo/tail_weight_share",
    "seconds": "timing_s/step",
    "weights s": "timing_s/tw_grpo_head_pass",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder of a run."""
    parser.add_argument("run_dir", type=Path, help="folder of a run, e.g. outputs/demo/run")


def run(args: argparse.Namespace) -> int:
    """Print the table and what the run wrote."""
    scalars = read_scalars(args.run_dir / "tensorboard")
    print(step_table(scalars))
    print()
    for path in sorted(args.run_dir.iterdir()):
        if path.is_dir():
            print(f"{path}: {sum(1 for file in path.rglob('*') if file.is_file())} files")
    return 0


def read_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Every scalar below ``folder`` by name and step. Raises ``FileNotFoundError`` if there is no event file."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = sorted(folder.rglob("events.out.tfevents.*")) if folder.is_dir() else []
    if not files:
        raise FileNotFoundError(f"{folder}: no tensorboard events; run with trainer.logger=[console,tensorboard]")
    scalars: dict[str, dict[int, float]] = {}
    for file in files:  # one a start: a resumed run goes on in a new file
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for name in events.Tags()["scalars"]:
            scalars.setdefault(name, {}).update({event.step: event.value for event in events.Scalars(name)})
    return scalars


def step_table(scalars: dict[str, dict[int, float]]) -> str:
    """The columns of ``COLUMNS`` for every training step; a dash where a step did not log one."""
    steps = sorted(scalars.get("training/global_step", {}))
    lines = ["step " + " ".join(f"{name:>10}" for name in COLUMNS)]
    for step in steps:
        values = (scalars.get(scalar, {}).get(step) for scalar in COLUMNS.values())
        lines.append(f"{step:>4} " + " ".join(f"{'-' if v is None else format(v, '.3f'):>10}" for v in values))
    return "\n".join(lines)
