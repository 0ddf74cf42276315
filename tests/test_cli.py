"""The command line: every command says what it is for, and a bad input is one sentence."""

from __future__ import annotations

import json

import pytest

from verl_twgrpo import __version__, cli
from verl_twgrpo.doctor import checks as doctor


def commands(table, path=()):
    for name, (target, _) in table.items():
        if isinstance(target, dict):
            yield from commands(target, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("words", list(commands(cli.COMMANDS)), ids=" ".join)
def test_every_command_has_help(words, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--help"])
    assert end.value.code == 0
    assert "usage: verl-twgrpo " + " ".join(words) in capsys.readouterr().out


def test_it_says_its_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"verl-twgrpo {__version__}\n"


def test_no_command_is_an_error(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([])
    assert end.value.code == 2


def test_a_bad_input_is_one_sentence(capsys, tmp_path):
    assert cli.main(["demo", "table", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("verl-twgrpo: ")
    assert "no tensorboard events" in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_doctor_says_that_training_can_start(capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "ready: training can start"
    assert "verl-twgrpo parity MODEL" in out.splitlines()[-2]
    for name in (
        "verl ",
        "policy loss",
        "trainer",
        "reward manager",
        "platform",
        "video reader",
        "algorithm=, recipe=",
    ):
        assert name in out


@pytest.mark.slow
def test_doctor_shows_a_misfit_and_what_to_do(monkeypatch, capsys):
    version = doctor.metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "0.8.0" if name == "verl" else version(name))
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "!! verl" in out
    assert "-> pip install 'verl<0.10,>=0.9'" in out
    assert out.splitlines()[-1].startswith("not ready: 1 problem")


def test_doctor_shows_the_error_of_a_plugin_that_verl_hides(monkeypatch):
    class Broken:
        name, value = "theirs", "their.plugin"

        def load(self):
            raise ImportError("no module named their")

    stock = doctor.metadata.entry_points
    broken = {"verl.plugins": [Broken()]}
    monkeypatch.setattr(doctor.metadata, "entry_points", lambda group: [*stock(group=group), *broken.get(group, [])])
    (line,) = [f for f in doctor.plugins() if f.to_do]
    assert line.what.startswith("theirs")
    assert line.value == "ImportError: no module named their"


@pytest.mark.slow
def test_doctor_tells_a_program_the_same_as_a_reader(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["versions", "plugins", "registered with verl", "machine", "workarounds"]
    assert {"what": "verl-twgrpo", "value": __version__, "to_do": ""} in found["versions"]


def test_doctor_without_a_rollout_engine(monkeypatch):
    monkeypatch.setattr(doctor, "_installed", lambda name: False)
    (line,) = [f for f in doctor.versions() if f.what == "vllm"]
    assert "verl-twgrpo[gpu]" in line.to_do
