"""The demo's validation set through verl's own generation, and its dump through `verl-twgrpo eval`."""

from __future__ import annotations

import json

import pytest

from verl_twgrpo import cli

pytestmark = pytest.mark.e2e


def test_validation_questions_become_accuracies_with_intervals(start, tmp_path, capsys):
    run = start("trainer.val_before_train=True", recipe="demo_cpu_evaluate")
    assert run.wait() == 0, run.tail()
    assert run.logged() == [0]  # nothing was trained
    dump = run.folder / "validation" / "0.jsonl"
    rows = [json.loads(line) for line in dump.read_text().splitlines()]
    assert len({row["id"] for row in rows}) == 100
    figures = tmp_path / "figures.json"
    assert cli.main(["eval", str(dump), "--json", str(figures)]) == 0
    assert "mini_clevrer" in capsys.readouterr().out
    found = json.loads(figures.read_text())["scores"]["mini_clevrer"]["all"]
    assert found["n"] == 100
    assert found["strict"] == pytest.approx(sum(row["accuracy"] for row in rows) / len(rows))
    assert found["soft"] == pytest.approx(sum(row["soft_accuracy"] for row in rows) / len(rows))
    assert found["strict_low"] <= found["strict"] <= found["strict_high"]
