"""``verl-twgrpo bench step``: whole steps of a recipe by phase, packed groups against unpacked, for several algorithms.

Every algorithm runs twice through verl's own entry point, on the same rows in the same order: with
``algorithm.packed_groups=false`` and with ``true``. Seconds are the median over the steps but the first, which also
starts and compiles; the phases are verl's timers (``timing_s/*`` of verl/trainer/ppo/v1/trainer_base.py).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from verl_twgrpo.bench.device import add_device, check_device
from verl_twgrpo.files import write_csv

# in the order in which they run; "step" is the whole, and holds what has no timer of its own
PHASES = ("gen", "reward", "old_log_prob", "tw_grpo_extra_pass", "ref", "adv", "update_actor", "update_weights", "step")
ALGORITHMS = "grpo_token,tw_grpo"
PACKED = ("false", "true")
TAIL_LINES = 20


@dataclass(frozen=True)
class Measurement:
    """One line of the CSV. phase: of PHASES. seconds: of a step, median. ratio: unpacked over packed."""

    algorithm: str
    phase: str
    seconds_unpacked: float
    seconds_packed: float
    ratio: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``verl-twgrpo bench step``."""
    parser.add_argument(
        "--algorithm", default=ALGORITHMS, metavar="NAME,...", help=f"presets to compare ({ALGORITHMS})"
    )
    parser.add_argument("--steps", type=int, default=4, help="steps of a run; all but the first are timed")
    parser.add_argument("--csv", type=Path, metavar="F", help="write the measurements to this file")
    add_device(parser)
    parser.add_argument("overrides", nargs="*", help="the run, as for verl (recipe=demo_cpu)")


def run(args: argparse.Namespace) -> int:
    """Runs every algorithm twice and prints a line per algorithm and phase.

    Raises:
        ValueError: fewer than two steps, a run that cannot be composed or does not pass the checks.
        ChildProcessError: with the end of a failed run's output.
    """
    check_device(args.device)
    if args.steps < 2:
        raise ValueError(f"bench step --steps {args.steps}: the first step is not timed, so need 2 or more")
    runs = {
        (algorithm, packed): words(algorithm, packed, args.steps, args.device, args.overrides)
        for algorithm in args.algorithm.split(",")
        for packed in PACKED
    }
    for overrides in runs.values():
        _check(overrides)
    print(f"{'algorithm':<18}{'phase':<20}{'unpacked s':>11}{'packed s':>10}{'ratio':>7}")
    measurements: list[Measurement] = []
    for algorithm in args.algorithm.split(","):
        logged = []
        for packed in PACKED:
            number = list(runs).index((algorithm, packed)) + 1
            what = f"{algorithm}, algorithm.packed_groups={packed}, {args.steps} steps"
            print(f"run {number} of {len(runs)}: {what}", file=sys.stderr, flush=True)
            logged.append(train(runs[algorithm, packed]))
        of_algorithm = compare(algorithm, *logged)
        for m in of_algorithm:
            print(
                f"{m.algorithm:<18}{m.phase:<20}{m.seconds_unpacked:>11.3f}{m.seconds_packed:>10.3f}{m.ratio:>7.2f}",
                flush=True,
            )
        tokens = [step["packed_groups/ratio"] for step in logged[1] if "packed_groups/ratio" in step]
        print(f"{algorithm:<18}tokens: {median(tokens):.2f} times fewer packed", flush=True)
        measurements += of_algorithm
    if args.csv:
        write_csv(args.csv, map(asdict, measurements))
    return 0


def words(algorithm: str, packed: str, steps: int, device: str, overrides: Sequence[str]) -> list[str]:
    """Overrides of one run: no validation, nothing saved, everything logged to a file."""
    recipe = [] if any(word.startswith("recipe=") for word in overrides) else ["recipe=demo_cpu"]
    return [
        f"algorithm={algorithm}",
        *recipe,
        *overrides,
        f"algorithm.packed_groups={packed}",
        "algorithm.tw_grpo.dump_dir=null",
        f"trainer.device={device}",
        f"trainer.total_training_steps={steps}",
        "trainer.logger=[file]",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        "trainer.resume_mode=disable",
        "trainer.rollout_data_dir=null",
    ]


def train(overrides: Sequence[str]) -> list[dict[str, float]]:
    """The metrics of each step of a run. Raises ChildProcessError with the end of its output if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        log, metrics = Path(folder) / "log.txt", Path(folder) / "metrics.jsonl"
        command = [sys.executable, "-m", "verl.trainer.main_ppo", *overrides]
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"VERL_FILE_LOGGER_PATH": str(metrics)},
            )
            try:
                code = process.wait()
            except BaseException:  # Ctrl-C: the run is in the same terminal and ends by itself
                process.wait()
                raise
        if code:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
            raise ChildProcessError(f"bench step: {' '.join(overrides)} ended with exit code {code}:\n{end}")
        steps = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [step["data"] for step in steps if step["step"] > 0]


def compare(
    algorithm: str, unpacked: Sequence[dict[str, float]], packed: Sequence[dict[str, float]]
) -> list[Measurement]:
    """A line per phase that both runs have, from the metrics of their steps; the first step is left out."""
    lines = []
    for phase in PHASES:
        timer = f"timing_s/{phase}"
        seconds = [[step[timer] for step in steps[1:] if timer in step] for steps in (unpacked, packed)]
        if all(seconds):
            one, other = (median(times) for times in seconds)
            lines.append(Measurement(algorithm, phase, one, other, one / other))
    return lines


def _check(overrides: Sequence[str]) -> None:
    """What the run itself would end with, before any of the others has started."""
    import verl  # noqa: F401 - loads the plugin, which adds the groups
    from hydra import compose, initialize_config_module
    from hydra.errors import HydraException

    from verl_twgrpo.training.checks import check_training_config

    with initialize_config_module("verl.trainer.config", version_base=None):
        try:
            config = compose("ppo_trainer", overrides=list(overrides))
        except HydraException as error:
            raise ValueError(" ".join(str(error).split())) from error
    check_training_config(config)
