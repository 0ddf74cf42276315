"""``verl-twgrpo demo train``: verl's own training command on what ``demo prepare`` made, one line per step."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from verl_twgrpo.mini_clevrer.quiet_run import run_quietly


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The demo's folder, and words for verl."""
    parser.add_argument("--out", type=Path, default=Path("outputs/demo"), help="folder that demo prepare filled")
    parser.add_argument("overrides", nargs="*", help="more words for verl, e.g. algorithm.tw_grpo.alpha=0")


def run(args: argparse.Namespace) -> int:
    """Train; the exit code is verl's. Raises ``ValueError`` for a configuration that cannot be composed."""
    from verl_twgrpo.planning.command import compose_run

    words = [
        "algorithm=tw_grpo",
        "recipe=demo_cpu",
        f"demo_dir={args.out}",
        f"ray_kwargs.ray_init.runtime_env.env_vars.TENSORBOARD_DIR={args.out}/run/tensorboard",
        *args.overrides,
    ]
    steps = compose_run(words).trainer.total_training_steps
    log = args.out / "run" / "log.txt"
    print(f"python -m verl.trainer.main_ppo {shlex.join(words)}\noutput of verl, Ray and vLLM: {log}", flush=True)
    print("starting; the first step comes in about a minute", flush=True)
    return run_quietly([sys.executable, "-m", "verl.trainer.main_ppo", *words], log, steps)
