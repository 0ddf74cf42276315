"""Workarounds are found, applied and listed; another package adds one in one file, as docs/extending.md shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import verl  # noqa: F401 - loads the plugin, before a test puts others in the place of its workarounds
from packaging.requirements import Requirement

from verl_twgrpo.compat import workaround
from verl_twgrpo.compat.workaround import AT_ONCE, Workaround, active, collect
from verl_twgrpo.doctor import checks

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs/extending.md").read_text(encoding="utf-8")


def example(language: str, first_line: str) -> str:
    """The one code block of docs/extending.md that starts with ``first_line``."""
    blocks = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(first_line) and "workaround" in block]
    return found


@pytest.fixture
def toy_package(tmp_path):
    """An installed package with the document's example, and the library whose bug it is about."""
    (tmp_path / "toy_upstream.py").write_text("def first_step():\n    return 0\n")
    (tmp_path / "toy_workaround.py").write_text(example("python", "# toy_workaround.py"))
    declared = re.search(r'entry-points."(.+)"\]\n(.+)', example("toml", "# pyproject.toml"))
    info = tmp_path / "toy-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{declared[1]}]\n{declared[2]}\n".replace('"', ""))
    return tmp_path


@pytest.mark.slow
def test_one_from_another_package_is_applied_and_listed(toy_package):
    code = """
import json, toy_upstream
before = toy_upstream.first_step()
import verl
from verl_twgrpo.doctor.checks import workarounds
print(json.dumps([before, toy_upstream.first_step(), {f.what: f.value for f in workarounds()}]))
"""
    path = os.pathsep.join([str(toy_package), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    before, after, listed = json.loads(done.stdout.splitlines()[-1])
    assert (before, after) == (0, 1)
    assert listed["toy"] == "numpy counts steps from zero (numpy>=1, https://example.com/toy/issues/1)"
    assert "equal_lengths" in listed


def test_every_file_of_the_folder_is_one():
    files = {path.stem for path in (ROOT / "verl_twgrpo/compat").glob("*.py")} - {"__init__", "workaround"}
    assert files <= set(collect())


@pytest.mark.parametrize("name", collect())
def test_each_says_what_it_is_for(name):
    found = collect()[name]
    assert found.because and not found.because.endswith(".")
    assert len(Requirement(found.versions).specifier), "which releases have the bug?"
    if found.link and "://" not in found.link:
        assert (ROOT / found.link).is_file()


def test_the_doctor_tells_when_another_release_is_installed(monkeypatch):
    other = replace(collect()["equal_lengths"], versions="verl==0.1")
    monkeypatch.setattr(workaround, "collect", lambda: {"old": other})
    (line,) = checks.workarounds()
    assert "not tried with the installed one" in line.value and not line.to_do


def toy(**fields) -> Workaround:
    return Workaround(**({"module": AT_ONCE, "apply": print, "because": "is a toy", "versions": "verl>=0"} | fields))


class Entry:
    def __init__(self, name, value):
        self.name, self.value = name, value

    def load(self):
        return self.value


@pytest.mark.parametrize(
    ("entry", "message"),
    [(Entry("toy", print), "name a Workaround"), (Entry("equal_lengths", toy()), "choose another")],
)
def test_a_wrong_entry_point_is_named(entry, message, monkeypatch):
    monkeypatch.setattr(workaround.metadata, "entry_points", lambda group: [entry])
    with pytest.raises(ValueError, match=f"entry point {entry.name} of verl_twgrpo.workarounds: .*{message}"):
        collect()
    (line,) = checks.workarounds()
    assert message in line.value and line.to_do


def test_what_this_machine_does_not_need_is_neither_applied_nor_listed(monkeypatch):
    applied = []
    kept = {"here": toy(apply=applied.append), "elsewhere": toy(apply=applied.append, needed=lambda: False)}
    monkeypatch.setattr(workaround, "collect", lambda: kept)
    workaround.install(checks)
    assert applied == [checks]
    assert list(active()) == ["here"]
