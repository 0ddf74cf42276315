"""The cause of a run's end in what its Ray workers wrote, for errors that only say that something failed elsewhere."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# the last line of a traceback, at the margin
EXCEPTION_LINE = re.compile(
    r"(?P<type>[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Timeout)(?:\(\w+\))?): \S|Fatal Python error: \S"
)
# Errors whose cause stands elsewhere: a process died (Ray, vLLM), all rollouts of a step failed (verl's
# replay_buffer.py), as did all of a validation (TransferQueue's client.py), an engine did not start (vLLM's core.py and
# multiproc_executor.py)
ELSEWHERE = re.compile(
    r"[\w.]*(ActorDiedError|ActorUnavailableError|WorkerCrashedError|NodeDiedError|EngineDeadError)\b"
    r"|.*(no materializable trajectories|Received an empty list as keys|root cause|exception in a background process)"
)
# before each line of vLLM's processes, and of its log
_PREFIX = re.compile(r"^(?:\(\w+ pid=\d+\) ?)?(?:[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?)?")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CHAINED = ("The above exception was the direct cause", "During handling of the above exception")
_READ = 4 * 2**20  # bytes from the end of a worker's log


@dataclass(frozen=True)
class Cause:
    """text: "Type: first line". times: how often the workers wrote it. file: where it stands last."""

    text: str
    times: int
    file: Path


def cause_in_workers() -> Cause | None:
    """The cause in the logs of this process's Ray job, as far as they lie on this machine."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    node = ray._private.worker.global_worker.node  # no public call tells the session's folder
    if node is None:
        return None
    return cause_in_logs(Path(node.get_logs_dir_path()), ray.get_runtime_context().get_job_id())


def cause_in_logs(folder: Path, job: str) -> Cause | None:
    """The cause that the workers of ``job`` wrote most often: what made all rollouts fail is said by each of them.

    Among causes written equally often it is that of the log that fell silent first: who died first writes no more.
    """
    found: dict[str, tuple[int, Path]] = {}
    logs = [path for end in ("err", "out") for path in folder.glob(f"worker-*-{job}-*.{end}")]
    for path in sorted(logs, key=lambda path: path.stat().st_mtime):
        for text in causes(_last_lines(path)):
            times, first = found.get(text, (0, path))
            found[text] = times + 1, first
    if not found:
        return None
    text = max(found, key=lambda text: found[text][0])
    return Cause(text, *found[text])


def causes(lines: Iterable[str]) -> Iterator[str]:
    """The first cause of each traceback in a log, as "Type: first line"; errors that point elsewhere are left out."""
    inside = chained = False
    for raw in lines:
        line = _PREFIX.sub("", _COLOUR.sub("", raw.rstrip("\n")))
        if line.startswith("Traceback (most recent call last)"):
            inside = True
        elif line.startswith(_CHAINED):
            chained = True
        elif line.startswith("Fatal Python error: ") or (inside and EXCEPTION_LINE.match(line)):
            if "RayTaskError" in line.partition(":")[0]:
                continue  # what failed in the other process follows
            inside = False
            if not chained and not ELSEWHERE.match(line):
                yield line.strip()
            chained = False


def _last_lines(path: Path) -> list[str]:
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _READ))
        return file.read().decode(errors="replace").splitlines()
