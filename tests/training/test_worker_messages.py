"""The cause of a run's end, found in recorded logs of Ray workers (verl 0.9.1, vLLM 0.28; paths shortened)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from verl_twgrpo.training.exit_summary import why
from verl_twgrpo.training.worker_messages import Cause, cause_in_logs, cause_in_workers, causes

LOGS = Path(__file__).parent / "worker_logs"
JOB = "01000000"
ALL_FAILED = "Sync replay buffer selected terminal groups with no materializable trajectories."


@pytest.fixture
def session(tmp_path):
    """Puts a recorded log where Ray has it: ``session("rollouts_failed.err", worker="ab", age=5)``."""

    def put(name: str, worker: str = "ab", job: str = JOB, age: float = 0) -> Path:
        path = tmp_path / f"worker-{worker}-{job}-77{Path(name).suffix}"
        shutil.copy(LOGS / name, path)
        os.utime(path, (1e9 - age, 1e9 - age))
        return path

    put.folder = tmp_path
    return put


def test_rollouts_that_all_failed_say_why_instead_of_how_verl_noticed(session):
    path = session("rollouts_failed.err")
    session("engine_did_not_start.out", worker="cd", job="02000000")  # another run of this cluster
    cause = cause_in_logs(session.folder, JOB)
    assert cause == Cause("RuntimeError: this rollout fails on purpose", 2, path)
    (line,) = why(RuntimeError(ALL_FAILED), lambda: cause)
    assert line.startswith(f"Why it ended: RuntimeError: this rollout fails on purpose (2 times in {path}; then Runt")


def test_an_engine_that_did_not_start_has_its_cause_behind_vllms_prefixes(session):
    session("engine_did_not_start.err")
    path = session("engine_did_not_start.out")
    cause = cause_in_logs(session.folder, JOB)
    assert cause == Cause("IndexError: list index out of range", 1, path)
    error = RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")
    assert why(error, lambda: cause)[0].startswith(f"Why it ended: IndexError: list index out of range (in {path}; ")


def test_among_equals_it_is_the_log_that_fell_silent_first(session):
    once = LOGS / "engine_did_not_start.out"
    session("engine_did_not_start.out", worker="late")
    early = session.folder / f"worker-early-{JOB}-77.out"
    early.write_text(once.read_text().replace("IndexError: list index out of range", "OSError: the disk is full"))
    os.utime(early, (1e9 - 9, 1e9 - 9))
    assert cause_in_logs(session.folder, JOB).text == "OSError: the disk is full"


def test_the_first_of_a_chain_and_the_error_of_the_process_behind_it():
    log = """
Traceback (most recent call last):
  File "a.py", line 1, in read
FileNotFoundError: 8.mp4 is not there

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "b.py", line 1, in step
ValueError: the step failed
Traceback (most recent call last):
  File "c.py", line 1, in score
ray.exceptions.RayTaskError(ValueError): \x1b[36mray::RewardLoopWorker.compute_score()\x1b[39m (pid=1, ip=10.0.0.1)
  File "d.py", line 1, in compute_score
ValueError: answer Z is not among the options
Traceback (most recent call last):
  File "e.py", line 1
ray.exceptions.ActorDiedError: The actor died unexpectedly
torch.OutOfMemoryError: no traceback above it
Fatal Python error: Segmentation fault
"""
    assert list(causes(log.splitlines())) == [
        "FileNotFoundError: 8.mp4 is not there",
        "ValueError: answer Z is not among the options",
        "Fatal Python error: Segmentation fault",
    ]


def test_an_error_that_says_its_cause_is_believed_and_logs_are_not_asked():
    def asked():
        raise AssertionError("no need to read logs")

    assert why(ValueError("alpha is negative"), asked) == ["Why it ended: ValueError: alpha is negative"]


def test_a_process_that_died_without_a_word_is_described_by_ray(session):
    assert cause_in_logs(session.folder, JOB) is None
    assert cause_in_workers() is None  # no Ray runs here

    class ActorDiedError(Exception):
        pass

    text = "The actor died unexpectedly before finishing this task.\n\tpid: 7\nWorker exit detail: killed by SIGKILL."
    (line,) = why(ActorDiedError(text), lambda: None)
    assert line.endswith("before finishing this task. killed by SIGKILL.")
