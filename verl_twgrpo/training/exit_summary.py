"""The exit summary of a failed run: its dumps, its last whole checkpoint, and the command that resumes."""

from __future__ import annotations

import atexit
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import wrapt
from omegaconf import DictConfig, OmegaConf

from verl_twgrpo.run_folder import last_checkpoint

from .worker_messages import ELSEWHERE, EXCEPTION_LINE, Cause, cause_in_workers

# what verl and this package write while they train -> its setting
DUMPS = {
    "token weights": "algorithm.tw_grpo.dump_dir",
    "rollouts": "trainer.rollout_data_dir",
    "validation": "trainer.validation_data_dir",
}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# The driver's module goes by the first name if it was started by `python -m`.
DRIVERS = ("__main__", "verl.trainer.main_ppo")


def install_exit_summary(config: DictConfig) -> None:
    """Let verl's ``run_ppo`` (verl/trainer/main_ppo.py), which is called next, end with ``exit_summary`` if it fails.

    This is the driver, which lives longest: Ctrl-C and SIGTERM reach it, while Ray kills the trainer's actor.
    """
    if OmegaConf.select(config, "algorithm.tw_grpo") is None:
        return
    for name in DRIVERS:
        driver = sys.modules.get(name)
        run_ppo = getattr(driver, "run_ppo", None)
        if callable(run_ppo) and not isinstance(run_ppo, wrapt.FunctionWrapper):
            wrapt.wrap_function_wrapper(driver, "run_ppo", _say_if_it_fails)


def _say_if_it_fails(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    config = args[0] if args else kwargs["config"]
    try:
        return wrapped(*args, **kwargs)
    except BaseException as error:  # Ctrl-C, and SystemExit, which Ray makes of SIGTERM
        lines = [*exit_summary(config, sys.orig_argv), *why(error, cause_in_workers)]
        # at exit, that is, below the traceback, whoever prints it
        atexit.register(_say_last, lines)
        raise


def _say_last(lines: Sequence[str]) -> None:
    """Print the lines once Ray has stopped: until then it prints on what workers say."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()
    print("\n".join(lines), file=sys.stderr, flush=True)


def why(error: BaseException, in_workers: Callable[[], Cause | None] = lambda: None) -> list[str]:
    """One line with the first cause of ``error``; none where somebody ended the run by hand.

    ``in_workers`` is asked where the error only says that something failed in another process.
    """
    cause = first_cause(error)
    if not cause:
        return []
    said = in_workers() if ELSEWHERE.match(cause) else None
    if said is not None:
        times = f"{said.times} times in" if said.times > 1 else "in"
        return [f"Why it ended: {said.text} ({times} {said.file}; then {cause})"]
    # how a process died is said below Ray's first line
    detail = re.search(r"Worker exit detail: (.+)", str(error))
    return [f"Why it ended: {cause}{f' {detail[1]}' if detail else ''}"]


def first_cause(error: BaseException) -> str:
    """The exception at the bottom of the chain, as "Type: first line", or "".

    An error from another process carries that chain as text (ray.exceptions.RayTaskError): tracebacks, one in the
    other, the first cause first.
    """
    while True:
        deeper = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if deeper is None:
            break
        error = deeper
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return ""
    text = _COLOUR.sub("", str(error))
    for line in text.splitlines():
        found = EXCEPTION_LINE.match(line)
        if found and not (found["type"] or "").startswith("ray.exceptions.RayTaskError"):
            return line.strip()
    return f"{type(error).__name__}: {text.strip().splitlines()[0] if text.strip() else '(no message)'}"


def exit_summary(config: DictConfig, command: Sequence[str]) -> list[str]:
    """The lines: every dump's folder and its newest file, the last whole checkpoint, and ``command`` that resumes."""
    lines = ["", "The run ended before it was done. What it leaves:"]
    for what, key in DUMPS.items():
        folder = OmegaConf.select(config, key)
        lines.append(f"  {what:<14} {_newest(Path(folder)) if folder else f'not kept ({key} is not set)'}")
    checkpoint = last_checkpoint(config.trainer.default_local_dir)
    lines.append(f"  {'checkpoint':<14} {checkpoint or 'no whole one yet'}")
    again = [*command, *([] if config.trainer.resume_mode == "auto" else ["trainer.resume_mode=auto"])]
    lines.append("It goes on from there with:" if checkpoint else "It starts again with:")
    return [*lines, f"  cd {shlex.quote(os.getcwd())} && {shlex.join(again)}"]


def _newest(folder: Path) -> str:
    files = [file for file in folder.glob("*") if file.is_file()] if folder.is_dir() else []
    if not files:
        return f"{folder.absolute()}: nothing yet"
    return f"{folder.absolute()}: {len(files)} files, the newest {max(files, key=lambda f: f.stat().st_mtime).name}"
