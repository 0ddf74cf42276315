"""The script that kills runs: when it strikes, what it reads of a run, and what its committed results say."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
import types
from collections import Counter
from pathlib import Path

import pytest

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
    assert Counter(moment.victims for moment in chosen) == {"everything": 10, "driver": 10}
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


def test_the_parts_are_methods_that_are_there(phases):
    from importlib import import_module

    for module, cls, method in phases.PARTS:
        assert callable(getattr(getattr(import_module(module), cls), method))


@pytest.mark.parametrize(
    ("named", "resumed_at", "orphans", "fine"), [(4, 5, 0, True), (4, 6, 0, False), (4, 4, 0, False), (4, 5, 1, False)]
)
def test_a_life_goes_on_right_behind_the_last_whole_checkpoint(chaos, named, resumed_at, orphans, fine):
    assert chaos.Kill(1, "dump", "driver", "dump", named, resumed_at, orphans).lost_nothing is fine


def test_a_killed_life_leaves_no_process(chaos, tmp_path):
    """Processes in sessions of their own as well, as Ray's are."""
    life = chaos.Life.__new__(chaos.Life)
    life.mark, life.phases = "a-mark-of-this-test", tmp_path / "none"
    code = "import subprocess, sys, time; subprocess.Popen(['sleep', '60'], start_new_session=True); time.sleep(60)"
    environment = {chaos.MARK: life.mark, "PATH": "/usr/bin:/bin"}
    life.process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    while len(list(life.alive())) < 2:
        assert life.process.poll() is None
    assert life.kill("everything") == ([], 0)
    assert list(life.alive()) == []


def test_the_committed_results_are_what_the_page_says(chaos):
    with open(FOLDER / "kills.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"{len(rows)} kills" in text
    parts = Counter(row["part"] for row in rows)
    for part, count in parts.items():
        assert f"| {part} | {count} |" in text
    numbers = ("number", "named", "resumed_at", "orphans")
    kills = [chaos.Kill(**{key: int(value) if key in numbers else value for key, value in row.items()}) for row in rows]
    assert all(kill.resumed_at == kill.named + 1 for kill in kills)
    struck = sum(kill.part in kill.open_parts.split(", ") for kill in kills)
    assert f"{struck} of them struck the part that was aimed at" in text
    assert f"{sum(kill.orphans for kill in kills)} processes were still there" in text
