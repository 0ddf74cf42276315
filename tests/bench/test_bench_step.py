"""``bench step`` with runs of verl that a script stands in for: phases, order, files, and failures."""

from __future__ import annotations

import csv
import sys
import textwrap

import pytest

from verl_twgrpo.bench import step as bench
from verl_twgrpo.cli import main


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """``python -m verl.trainer.main_ppo`` is this script: packed phases take half the time; the first step is slow."""
    script = tmp_path / "main_ppo.py"
    script.write_text(
        textwrap.dedent("""
        import json, os, sys
        words = dict(word.split("=", 1) for word in sys.argv[1:])
        if words["algorithm"] == "broken":
            sys.exit("it broke")
        packed = words["algorithm.packed_groups"] == "true"
        with open(os.environ["VERL_FILE_LOGGER_PATH"], "w") as file:
            for step in range(1, int(words["trainer.total_training_steps"]) + 1):
                seconds = (100 if step == 1 else step) / (2 if packed else 1)
                data = {"timing_s/gen": 3.0, "timing_s/old_log_prob": seconds, "timing_s/step": 3 + seconds}
                if packed:
                    data["packed_groups/ratio"] = 3.5
                file.write(json.dumps({"step": step, "data": data}) + "\\n")
        """)
    )
    popen = bench.subprocess.Popen
    monkeypatch.setattr(
        bench.subprocess, "Popen", lambda words, **how: popen([sys.executable, str(script), *words[3:]], **how)
    )
    monkeypatch.setattr(bench, "_check", lambda overrides: None)


def test_phases_of_both_ways_are_medians_of_all_steps_but_the_first(stand_in, tmp_path, capsys):
    table = tmp_path / "step.csv"
    assert main(["bench", "step", "--algorithm", "grpo_token,gtpo", "--steps", "4", "--csv", str(table)]) == 0
    assert "tokens: 3.50 times fewer packed" in capsys.readouterr().out
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["algorithm", "phase", "seconds_unpacked", "seconds_packed", "ratio"]
    expected = [("gen", 3, 3), ("old_log_prob", 3, 1.5), ("step", 6, 4.5)]
    assert [
        (row["algorithm"], row["phase"], float(row["seconds_unpacked"]), float(row["seconds_packed"])) for row in rows
    ] == [(name, *line) for name in ("grpo_token", "gtpo") for line in expected]
    assert float(rows[1]["ratio"]) == 2


def test_a_run_that_fails_ends_with_its_last_words(stand_in, capsys):
    assert main(["bench", "step", "--algorithm", "broken"]) == 2
    error = capsys.readouterr().err
    assert "algorithm=broken recipe=demo_cpu" in error and "exit code 1" in error and "it broke" in error


@pytest.mark.slow
def test_what_cannot_run_is_refused_before_anything_starts(monkeypatch, capsys):
    monkeypatch.setattr(bench, "train", lambda words: pytest.fail("started"))
    assert main(["bench", "step", "--steps", "1"]) == 2
    assert "--steps 1" in capsys.readouterr().err
    assert main(["bench", "step", "--algorithm", "grpo_token,no_such"]) == 2
    assert "algorithm/no_such" in capsys.readouterr().err
