"""vLLM's engine is gone soon after the process that started it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

# a parent, and a child that vLLM would have started from it, which works on and on
PARENT = """
import multiprocessing, sys, time

def engine(watched, deaf):
    import signal
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if watched:
        from verl_twgrpo.compat import orphaned_engine
        orphaned_engine.GRACE_S = 0.2
        started = [orphaned_engine.end_with_parent() for _ in range(2)]
        assert started == [name.startswith("EngineCore")] * 2
    print("up", flush=True)
    time.sleep(60)

name = sys.argv[1]
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=engine, name=name, args=(int(sys.argv[2]), int(sys.argv[3])))
    child.start()
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("name", "watched", "deaf", "lives_on"),
    [
        ("EngineCore", 1, 0, False),
        ("EngineCore_DP1", 1, 1, False),  # its own shutdown hangs
        ("EngineCore", 0, 0, True),  # what happens without it
        ("somebody_elses", 1, 0, True),
    ],
)
@pytest.mark.slow
def test_an_engine_ends_with_a_parent_that_is_killed(tmp_path, name, watched, deaf, lives_on):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, str(script), name, str(watched), str(deaf)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = {parent.stdout.readline().strip() for _ in range(2)}
    (pid,) = said - {"up"}
    child = psutil.Process(int(pid))
    try:
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + (1 if lives_on else 20)
        while running(child) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert running(child) == lives_on
    finally:
        if running(child):
            child.kill()


def running(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_process_that_is_nobodys_child_is_left_alone():
    from verl_twgrpo.compat.orphaned_engine import end_with_parent

    assert not end_with_parent()


@pytest.mark.upstream_bug
def test_vllm_does_not_watch_the_parent_of_its_engine():
    found = importlib.util.find_spec("vllm")
    if found is None:
        pytest.skip("vLLM is not installed")
    folder = Path(found.origin).parent / "v1" / "engine"
    source = "".join((folder / name).read_text() for name in ("core.py", "utils.py"))
    assert 'name=f"EngineCore_DP{global_index}" if is_dp else "EngineCore"' in source  # what the workaround goes by
    assert not [
        word for word in ("death_pipe", "parent_process()", "getppid", "PDEATHSIG", "monitor_parent") if word in source
    ]
