"""``bench group`` at a size of milliseconds: every column is filled, and the two ways agree."""

from __future__ import annotations

import csv

import pytest

from verl_twgrpo.bench import group as bench
from verl_twgrpo.cli import main


@pytest.mark.slow
def test_the_command_writes_the_columns_and_both_ways_give_the_same_log_probs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "CALLS", 1)
    table, plot = tmp_path / "group.csv", tmp_path / "group.png"
    command = ["bench", "group", "--shape", "24/5", "--group-size", "3", "--csv", str(table), "--plot", str(plot)]
    assert main(command) == 0
    assert "forward_backward" in capsys.readouterr().out
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "shape", "G", "pass", "seconds_padded", "seconds_packed", "ratio", "peak_mib_padded", "peak_mib_packed",
        "max_gap",
    ]  # fmt: skip
    assert [(row["shape"], row["G"], row["pass"]) for row in rows] == [("24/5", "3", name) for name in bench.PASSES]
    for row in rows:
        ratio = float(row["seconds_padded"]) / float(row["seconds_packed"])
        assert float(row["ratio"]) == pytest.approx(ratio) and ratio > 0
        assert 0 <= float(row["max_gap"]) < 1e-4
        assert float(row["peak_mib_padded"]) >= 0 and float(row["peak_mib_packed"]) >= 0
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("shape", ["12", "a/b", "12/0", "1/2/3"])
def test_a_shape_that_is_none_is_named(shape, capsys):
    assert main(["bench", "group", "--shape", shape]) == 2
    assert f"--shape {shape}: need tokens of the prompt / of a response" in capsys.readouterr().err


@pytest.mark.slow
def test_a_case_that_fails_says_which_and_why():
    case = {"way": "sideways", "shape": "3/2", "G": 2, "pass_": "forward", "device": "cpu", "body": "small"}
    with bench._Process(case) as process, pytest.raises(ChildProcessError, match="(?s)'way': 'sideways'.*KeyError"):
        process.call()
