"""The end of the demo: the course of every metric, and what became of the held-out questions."""

from __future__ import annotations

import json

from verl_twgrpo import cli
from verl_twgrpo.mini_clevrer.demo.table import before_and_after, sparkline, step_table


def dump(folder, step: int, right: int, n: int = 20) -> None:
    folder.mkdir(exist_ok=True)
    rows = [{"accuracy": float(k < right), "score": 2.0 if k < right else 1.0} for k in range(n)]
    (folder / f"{step}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_before_and_after_have_intervals_and_come_from_the_first_and_the_last_validation(tmp_path):
    for step, right in ((0, 5), (10, 1), (24, 15)):
        dump(tmp_path, step, right)
    heading, accuracy, reward = before_and_after(tmp_path)
    assert "n = 20" in heading and "24 steps" in heading
    # Wilson's interval of 5 of 20 and of 15 of 20, from a table
    assert accuracy.split() == ["accuracy", "0.25", "[0.11,", "0.47]", "->", "0.75", "[0.53,", "0.89]"]
    assert reward.split()[:2] == ["reward", "1.25"] and "-> 1.75" in reward


def test_one_validation_alone_is_said_to_be_no_comparison(tmp_path):
    dump(tmp_path, 0, 3)
    (line,) = before_and_after(tmp_path)
    assert "nothing to compare" in line


def test_a_sparkline_goes_from_low_to_high():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([2.0, None, 2.0]) == "▁▁"
    assert len(sparkline(list(range(100)))) == 10
    assert sparkline([None]) == ""


def test_the_last_line_of_the_table_has_the_courses():
    scalars = {"training/global_step": {1: 1, 2: 2}, "critic/rewards/mean": {1: 0.5, 2: 0.9}}
    lines = step_table(scalars).splitlines()
    assert lines[-1].split() == ["▁█"]


def test_a_folder_without_metrics_is_no_run(tmp_path, capsys):
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.1").write_bytes(bytes(range(256)))
    assert cli.main(["demo", "table", str(tmp_path)]) == 2
    assert f"{tmp_path}: no metrics in its tensorboard/" in capsys.readouterr().err
