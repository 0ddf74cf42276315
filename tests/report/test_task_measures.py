"""A run with rows of other tasks: their measures, with intervals, stand in the report's tables and on its page."""

from __future__ import annotations

import argparse
import csv
import json
import re

import pytest

from verl_twgrpo.evaluation import evaluate_tasks, read_predictions, score_rows
from verl_twgrpo.report import command
from verl_twgrpo.report.reading import read_runs
from verl_twgrpo.report.validations import Validations, task_settings

from .dumps import task_rows, write_lines, write_run_settings, write_task_run


def report(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args([str(argument) for argument in arguments])) == 0


@pytest.fixture
def task_run(tmp_path):
    return write_task_run(tmp_path / "tasks")


def test_the_tables_have_every_measure_at_the_first_and_the_last_validation(task_run, tmp_path):
    report(task_run, "--out", tmp_path / "out")
    table = (tmp_path / "out" / "tasks.md").read_text().splitlines()
    # [0, 10] covers a truth of 6 seconds; 4 and 2 of its 6 seconds
    miou = next(line for line in table if "mIoU" in line)
    assert miou.startswith("| own | temporal_grounding | mIoU | step 0: 0.300 [") and " → step 3: 0.500 [" in miou
    for name in ("R@0.3", "R@0.5", "R@0.7", "mean absolute error"):
        assert any(f"| {name} |" in line for line in table), name
    written = list(csv.DictReader((tmp_path / "out" / "tasks.csv").open()))
    scored = evaluate_tasks(score_rows(read_predictions([task_run / "validation" / "3.jsonl"]).rows))
    expected = scored["own"]["temporal_grounding"].measures["iou"]
    (found,) = [row for row in written if (row["step"], row["measure"]) == ("3", "mIoU")]
    assert [float(found[name]) for name in ("mean", "low", "high", "n")] == [
        *(expected.mean, expected.low, expected.high, 2)
    ]
    page = (tmp_path / "out" / "README.md").read_text()
    assert "\n".join(table) in page
    # rows without letters have no Table 3
    assert not (tmp_path / "out" / "table3.md").exists()


def test_the_page_has_them_at_every_validation(task_run, tmp_path):
    report(task_run, "--out", tmp_path / "out")
    text = (tmp_path / "out" / "data" / "validation.js").read_text()
    ((one,),) = json.loads("[" + re.fullmatch(r"Report\.validation\((.*)\);\n", text)[1] + "]")
    measures = {(row["task"], row["name"]): row["values"] for row in one["measures"]}
    assert [value[0] for value in measures["temporal_grounding", "mIoU"]] == [0.3, 0.5]
    assert measures["counting", "accuracy"] == [[0, 0, 0.79345, 1], [1, 0.20655, 1, 1]]
    assert ("temporal_grounding", "score") not in measures


def test_they_are_measured_by_the_settings_of_the_run(task_run, tmp_path):
    name = "reward__custom_reward_function__reward_kwargs__tasks__temporal_grounding__overlap"
    write_run_settings(task_run, reward__reward_manager__name="video_tasks", **{name: "best"})
    (run,) = read_runs([task_run])
    # of the best interval, which is 2 to 6
    assert Validations().of(run)[3].tasks["own"]["temporal_grounding"].measures["iou"].mean == pytest.approx(0.75)


def test_a_run_that_trained_by_another_manager_or_has_a_task_that_is_not_here_gets_the_defaults():
    kwargs = "reward.custom_reward_function.reward_kwargs."
    manager = {"reward.reward_manager.name": "video_tasks"}
    assert task_settings({f"{kwargs}mode": "exact"}).tasks == {}
    own = {f"{kwargs}modules": ["/nowhere/mine.py"], f"{kwargs}tasks.mine.size": 3, f"{kwargs}format_weight": 0.5}
    assert task_settings(manager | own).common == {"format_weight": 0.5}
    assert task_settings(manager | own).tasks == {}


def test_a_setting_that_cannot_be_read_is_said(task_run):
    write_run_settings(
        task_run,
        reward__reward_manager__name="video_tasks",
        reward__custom_reward_function__reward_kwargs__format_weigth=1,
    )
    (run,) = read_runs([task_run])
    notes = Validations().of(run)[3].notes
    assert len(notes) == 1 and "scored by the default settings" in notes[0] and "format_weigth" in notes[0]


def test_a_file_is_scored_once_while_it_stays_as_it_is(task_run, monkeypatch):
    from verl_twgrpo.report import validations

    scored = []
    real = validations.score_file
    monkeypatch.setattr(validations, "score_file", lambda path, *rest: (scored.append(path.name), real(path, *rest))[1])
    (run,) = read_runs([task_run])
    seen = Validations()
    seen.of(run)
    seen.of(run)
    assert scored == ["0.jsonl", "3.jsonl"]
    write_lines(run.validation[3], task_rows(3, "2 to 6"))
    assert seen.of(run)[3].tasks["own"]["temporal_grounding"].n == 1
    assert scored == ["0.jsonl", "3.jsonl", "3.jsonl"]
