"""Runs of the real thing: verl's entry point in a process of its own, with everything it starts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
MARK = "VERL_TWGRPO_TEST_RUN"

PHASES = "phases.tsv"

# A start takes most of a minute on two free cores, and several where they are shared.
TIMEOUT = 900


@dataclass
class Run:
    """One run of verl's entry point: its folder, its process, and a mark that everything it starts inherits."""

    folder: Path
    process: subprocess.Popen
    mark: str

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")

    def wait(self) -> int:
        """Exit code; whatever is left after the time limit is killed, and the test fails."""
        try:
            return self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            for process in self.alive():
                process.kill()
            raise AssertionError(f"no end after {TIMEOUT} s\n{self.tail()}") from None

    def wait_for(self, happened: Callable[[], bool], every: float = 0.2) -> None:
        """Wait until something is true of the run, looking every so many seconds; fails if the run ends first."""
        deadline = time.monotonic() + TIMEOUT
        while not happened():
            assert self.process.poll() is None, f"the run ended before\n{self.tail()}"
            assert time.monotonic() < deadline, f"it never happened\n{self.tail()}"
            time.sleep(every)

    def wait_for_part(self, part: str, step: int) -> None:
        """Wait until a part of a step begins, as recipes/chaos/phases.py notes it: see ``watched``."""
        begun = re.compile(rf"\tbegin\t{part}\t{step}$", re.MULTILINE)
        phases = self.folder / PHASES
        self.wait_for(lambda: phases.is_file() and begun.search(phases.read_text()) is not None, every=0.01)

    def first_step(self) -> int:
        """The step at which a run that notes the parts of its steps began."""
        return int((self.folder / PHASES).read_text().splitlines()[0].split("\t")[3])

    def alive(self) -> list[psutil.Process]:
        """Every process that the run started and that still lives, wherever in the process tree it is now."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def orphans(self, patience: float = 60) -> list[str]:
        """What is still there some time after the end; it is killed then, so that the next test has the machine."""
        deadline = time.monotonic() + patience
        while (left := self.alive()) and time.monotonic() < deadline:
            time.sleep(0.5)
        names = [" ".join(process.cmdline())[:120] for process in left]
        for process in left:
            process.kill()
        return names

    def tail(self) -> str:
        return "\n".join(self.log.splitlines()[-40:])

    def logged(self) -> list[int]:
        """The training steps that verl's console logger printed, in order."""
        return [int(step) for step in re.findall(r"\bstep:(\d+) - ", self.log)]

    def metrics(self, step: int) -> dict[str, float]:
        """What verl's console logger printed for a step."""
        lines = [line for line in self.log.splitlines() if re.search(rf"\bstep:{step} - ", line)]
        assert lines, f"step {step} was not logged\n{self.tail()}"
        pairs = re.findall(r"([\w/@.-]+):(?:np\.\w+\()?(-?[\d.]+(?:e[+-]?\d+)?|nan|inf)", lines[-1].split(" - ", 1)[1])
        return {name: float(value) for name, value in pairs}

    def dump(self, step: int) -> list[dict]:
        """The rows of the step's dump."""
        return pq.read_table(self.folder / "tw_grpo" / f"step_{step:06d}.parquet").to_pylist()


def watched(folder: Path) -> dict[str, str]:
    """The environment in which a run in ``folder`` notes the parts of its steps; what it noted before is removed."""
    (folder / PHASES).unlink(missing_ok=True)
    path = os.pathsep.join([str(ROOT / "recipes" / "chaos"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"VERL_USE_EXTERNAL_MODULES": "phases", "CHAOS_PHASES": str(folder / PHASES), "PYTHONPATH": path}


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """The demo's data and checkpoint: those that `make demo` made, or new ones."""
    folder = ROOT / "outputs" / "demo"
    if not (folder / "model" / "config.json").is_file():
        folder = tmp_path_factory.mktemp("demo")
    subprocess.run([sys.executable, "-m", "verl_twgrpo.cli", "demo", "prepare", "--out", str(folder)], check=True)
    return folder


@pytest.fixture(scope="session")
def launch():
    """Start a command, with its log in a folder: ``launch(command, folder) -> Run``; what is left at the end is ended.

    The command runs in the repository, or in ``cwd``.
    """
    runs = []

    def launch(command: list[str], folder: Path, environment: dict[str, str] | None = None, cwd: Path = ROOT) -> Run:
        mark = uuid.uuid4().hex
        environment = os.environ | {MARK: mark} | (environment or {})
        with open(folder / "log.txt", "a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=cwd, env=environment)
        runs.append(Run(folder, process, mark))
        return runs[-1]

    yield launch
    for run in runs:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGKILL)
        run.orphans(patience=0)


@pytest.fixture(scope="session")
def start(demo, launch, tmp_path_factory):
    """Start the demo's recipe with overrides: ``start("trainer.total_training_steps=2", folder=...) -> Run``.

    With ``watch`` the run notes the parts of its steps; ``through`` is a command that takes verl's.
    """

    def start(
        *overrides: str,
        folder: Path | None = None,
        environment: dict[str, str] | None = None,
        recipe: str = "demo_cpu",
        watch: bool = False,
        through: Sequence[str] = (),
    ) -> Run:
        folder = folder or tmp_path_factory.mktemp("run")
        if watch:
            environment = (environment or {}) | watched(folder)
        command = [
            *through, sys.executable, "-m", "verl.trainer.main_ppo", "algorithm=tw_grpo", f"recipe={recipe}",
            f"demo_dir={demo}",
            f"algorithm.tw_grpo.dump_dir={folder}/tw_grpo",
            f"trainer.default_local_dir={folder}/checkpoints",
            f"trainer.rollout_data_dir={folder}/rollouts",
            f"trainer.validation_data_dir={folder}/validation",
            "trainer.logger=[console]", "trainer.val_before_train=False",
            "trainer.test_freq=-1", "trainer.save_freq=-1",
            # half of the demo's batch: these runs look at numbers, not at learning
            "data.train_batch_size=4", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
            "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
            *overrides,
        ]  # fmt: skip
        return launch(command, folder, environment)

    return start
