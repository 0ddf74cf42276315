"""A training run whose output goes to a file: the screen has one line per step, and the end of the file if it fails."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# verl's console logger: "step:3 - critic/rewards/mean:1.2 - timing_s/step:np.float64(4.5) - ..."
_STEP = re.compile(r"\bstep:(\d+) - (.*)")
_VALUE = re.compile(r"([\w/@.-]+):(?:np\.\w+\()?(-?[\d.]+(?:e[+-]?\d+)?)")
# what a line shows -> metric
SHOWN = {"reward": "critic/rewards/mean", "accuracy": "tw_grpo/accuracy", "format": "tw_grpo/format"}
TAIL = 40  # lines of the log that are shown if the run fails


def run_quietly(
    command: Sequence[str],
    log: Path,
    steps: int,
    show: Callable[[str], None] = lambda line: print(line, flush=True),
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run ``command`` with its output in ``log``; returns its exit code.

    Args:
        steps: training steps of the run, for the time left.
        show: gets a line per training step, and the end of the log if the run fails.
        environment: added to this process's.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with open(log, "w") as output, open(log, errors="replace") as written:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
        try:
            rest = ""
            seen: list[tuple[int, float]] = []
            while True:
                ended = process.poll() is not None
                rest += written.read()
                *lines, rest = rest.split("\n")
                for step, metrics in filter(None, map(parse_step, lines)):
                    if step == 0 or step in [earlier for earlier, _ in seen]:
                        continue
                    seen.append((step, time.monotonic()))
                    show(step_line(step, steps, metrics, _seconds_left(seen, steps)))
                if ended:
                    break
                time.sleep(0.5)
        except BaseException:  # Ctrl-C: the run is in the same terminal and ends by itself, with its exit summary
            process.wait()
            raise
    if process.returncode:
        show(f"failed with exit code {process.returncode} after {time.monotonic() - started:.0f} s; the end of {log}:")
        show("\n".join(log.read_text(errors="replace").splitlines()[-TAIL:]))
    return process.returncode


def parse_step(line: str) -> tuple[int, dict[str, float]] | None:
    """The step and its metrics in a line of verl's console logger, or None for any other line."""
    found = _STEP.search(line)
    if not found:
        return None
    return int(found[1]), {name: float(value) for name, value in _VALUE.findall(found[2])}


def step_line(step: int, steps: int, metrics: Mapping[str, float], seconds_left: float | None) -> str:
    """``step  3 of 24  reward 1.02  accuracy 0.41  format 0.88   4.1 s, 1 min 30 s left``."""
    shown = "  ".join(f"{name} {metrics[key]:.2f}" for name, key in SHOWN.items() if key in metrics)
    took = f"{metrics['timing_s/step']:.1f} s" if "timing_s/step" in metrics else ""
    left = "" if seconds_left is None else f", {_words(seconds_left)} left"
    return f"step {step:>{len(str(steps))}} of {steps}  {shown}   {took}{left}"


def _seconds_left(seen: Sequence[tuple[int, float]], steps: int) -> float | None:
    """From the pace since the first step, which also loads and compiles; None while there is one step only."""
    (first, since), (last, now) = seen[0], seen[-1]
    return (now - since) / (last - first) * (steps - last) if last > first else None


def _words(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
