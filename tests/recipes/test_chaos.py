"""The script that kills runs: when it strikes, what it reads of a run, and what its committed results say."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import types
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from verl_twgrpo.files import write_csv

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "chaos"


def load(name):
    spec = importlib.util.spec_from_file_location(f"chaos_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def chaos():
    return load("chaos")


@pytest.fixture
def phases(monkeypatch):
    """The module without its hooks: they would watch the trainer of every later test of this process."""
    monkeypatch.setattr("wrapt.register_post_import_hook", lambda hook, name: None)
    return load("phases")


def test_every_part_of_a_step_is_struck_as_often_and_the_seed_says_when(chaos):
    chosen = chaos.moments(20, seed=1)
    assert Counter(moment.part for moment in chosen) == dict.fromkeys(chaos.PARTS, 4)
    assert Counter(moment.victims for moment in chosen) == {"everything": 7, "driver": 7, "worker": 6}
    assert chosen == chaos.moments(20, seed=1) != chaos.moments(20, seed=2)
    assert all(0 <= moment.share < 1 for moment in chosen)


def test_what_a_run_does_is_noted_and_read_back(chaos, phases, tmp_path, monkeypatch):
    path = tmp_path / "phases.tsv"
    monkeypatch.setenv("CHAOS_PHASES", str(path))
    assert chaos.read_phases(path) == []

    class Trainer:
        global_steps = 7

        def _update_actor(self):
            seen.append(chaos.under_way(chaos.read_phases(path)))

    seen, module = [], types.SimpleNamespace(TokenWeights=Trainer)
    phases.watch(module, "TokenWeights", "_update_actor", "update")
    Trainer()._update_actor()
    assert seen == [["update"]]
    (begin, end) = noted = chaos.read_phases(path)
    assert (begin.edge, end.edge, begin.step) == ("begin", "end", 7)
    assert chaos.under_way(noted) == []
    assert chaos.typical_seconds(noted, "update") == pytest.approx(end.at - begin.at)
    assert chaos.typical_seconds(noted, "dump") == 0.2  # none has ended yet
    with open(path, "a") as file:
        file.write("1.0\tbegin\tdu")  # a line that is being written
    assert chaos.read_phases(path) == noted


def test_a_checkpoint_that_breaks_off_is_over_and_not_finished(chaos, phases, tmp_path, monkeypatch):
    path = tmp_path / "phases_00.tsv"
    monkeypatch.setenv("CHAOS_PHASES", str(path))

    class Trainer:
        global_steps = 1

        def save(self):
            if self.global_steps == 2:
                raise RuntimeError("the worker was killed")

    phases.watch(types.SimpleNamespace(Trainer=Trainer), "Trainer", "save", "checkpoint")
    trainer = Trainer()
    trainer.save()
    trainer.global_steps = 2
    with pytest.raises(RuntimeError, match="killed"):
        trainer.save()
    assert chaos.under_way(chaos.read_phases(path)) == []
    assert chaos.last_finished(tmp_path) == 1


def test_the_parts_are_methods_that_are_there(phases):
    from importlib import import_module

    for module, cls, method in phases.PARTS:
        assert callable(getattr(getattr(import_module(module), cls), method))


FINE = {"victims": "driver", "finished": 4, "named": 4, "orphans": 0, "cause": "", "resumed_at": 5}


@pytest.mark.parametrize(
    ("found", "fine"),
    [
        ({}, True),
        ({"finished": 3}, True),  # its checkpoint was named a moment before the script noted it
        ({"finished": 5}, False),
        ({"resumed_at": 6}, False),
        ({"resumed_at": 4}, False),
        ({"resumed_at": None}, False),
        ({"orphans": 1}, False),
        ({"victims": "worker"}, False),
        ({"victims": "worker", "cause": "ActorDiedError: ..."}, True),
    ],
)
def test_a_life_goes_on_right_behind_the_last_whole_checkpoint(chaos, tmp_path, found, fine):
    kill = chaos.Kill(number=1, part="dump", open_parts="dump", noticed_s=1.5, **(FINE | found))
    assert kill.lost_nothing is fine
    write_csv(tmp_path / "kills.csv", [asdict(kill)])
    assert chaos.read_kills(tmp_path / "kills.csv") == [kill]


def test_a_killed_life_leaves_no_process(chaos, tmp_path):
    """Processes in sessions of their own as well, as Ray's are."""
    life = chaos.Life.__new__(chaos.Life)
    life.mark, life.phases = "a-mark-of-this-test", tmp_path / "none"
    code = "import subprocess, sys, time; subprocess.Popen(['sleep', '60'], start_new_session=True); time.sleep(60)"
    environment = {chaos.MARK: life.mark, "PATH": "/usr/bin:/bin"}
    life.process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    while len(list(life.alive())) < 2:
        assert life.process.poll() is None
    assert life.kill("everything") == ([], 0, 0.0)
    assert list(life.alive()) == []


STAND_IN = """
import os, subprocess, sys, time
from pathlib import Path

folder, steps, skipped = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

def part(name, step, work=lambda: None):
    for edge in ("begin", "end"):
        with open(os.environ["CHAOS_PHASES"], "a") as file:
            file.write(f"{time.time()}\\t{edge}\\t{name}\\t{step}\\n")
        if edge == "begin":
            time.sleep(0.03)
            work()
        if worker.poll() is not None:
            sys.exit("The run ended before it was done. What it leaves:\\nWhy it ended: ActorDiedError")

def save():
    (checkpoints / f"global_step_{step}" / "actor").mkdir(parents=True, exist_ok=True)
    tracker.write_text(str(step))

def dump():
    (folder / "tw_grpo").mkdir(exist_ok=True)
    (folder / "tw_grpo" / f"step_{step:06d}").touch()

notice = "import os, time\\nwhile os.getppid() == PARENT: time.sleep(0.02)".replace("PARENT", str(os.getpid()))
worker = subprocess.Popen(["ray::WorkerDict", "-c", notice], executable=sys.executable)
checkpoints = folder / "checkpoints"
tracker = checkpoints / "latest_checkpointed_iteration.txt"
first = (int(tracker.read_text()) if tracker.is_file() else 0) + 1 + skipped
for step in range(first, steps + 1):
    for name in ("rollouts", "head pass"):
        part(name, step)
    part("dump", step, dump)
    part("update", step)
    part("checkpoint", step, save)
"""


@pytest.mark.slow
@pytest.mark.parametrize("skipped", [0, 1])
def test_the_script_kills_resumes_and_goes_on_where_it_was_ended_itself(chaos, tmp_path, monkeypatch, capsys, skipped):
    """On a run of a few lines with verl's files, in place of one with an engine; one that skips a step is found."""

    def stand_in(folder, demo, steps, overrides):
        is_second = (folder / "phases_00.tsv").is_file() and not (folder / "phases_01.tsv").is_file()
        return [sys.executable, "-c", STAND_IN, str(folder), str(steps), str(skipped if is_second else 0)]

    def data_order(folder):
        return {int(path.name[5:]): ["a question"] for path in (folder / "tw_grpo").iterdir()}

    monkeypatch.setattr(chaos, "run_command", stand_in)
    monkeypatch.setattr(chaos, "data_order", data_order)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    command = ["chaos.py", "--kills=3", "--seed=1", f"--out={tmp_path}"]
    monkeypatch.setattr(sys, "argv", [*command, "--minutes=0.005"])
    assert chaos.main() == 3
    before = chaos.read_kills(tmp_path / "killed" / "kills.csv")
    assert 1 <= len(before) < 3
    monkeypatch.setattr(sys, "argv", command)
    assert chaos.main() == (1 if skipped else 0)
    kills = chaos.read_kills(tmp_path / "killed" / "kills.csv")
    chosen = chaos.moments(3, seed=1)
    assert [(kill.part, kill.victims) for kill in kills] == [(moment.part, moment.victims) for moment in chosen]
    assert [replace(kill, resumed_at=None) for kill in kills[: len(before)]] == [
        replace(kill, resumed_at=None) for kill in before
    ]
    assert [kill.cause for kill in kills] == ["", "", "ActorDiedError"]
    assert [kill.resumed_at - kill.named - 1 for kill in kills] == [skipped, 0, 0]
    assert ("NOT WELL" in capsys.readouterr().out) == bool(skipped)


def test_the_committed_results_are_what_the_page_says(chaos):
    kills = chaos.read_kills(FOLDER / "kills.csv")
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"{len(kills)} kills" in text
    for part, count in Counter(kill.part for kill in kills).items():
        assert f"| {part} | {count} |" in text
    assert all(kill.finished <= kill.named == kill.resumed_at - 1 for kill in kills)
    struck = sum(kill.part in kill.open_parts.split(", ") for kill in kills)
    assert f"{struck} of them struck the part that was aimed at" in text
    assert f"{sum(kill.orphans for kill in kills)} processes were still there" in text
