"""``verl-twgrpo report`` from the command line on."""

from __future__ import annotations

import argparse
import csv
import shutil

import pytest

from verl_twgrpo.report import command

pytestmark = pytest.mark.slow

SITE = {"index.html", "data", "code"}
EVERYTHING = {*command.FIGURES, "table3.md", "table3.csv", "tokens.html", "README.md", *SITE}


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_full_run_gets_every_figure_table_and_page(full_run, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(full_run, "--out", out) == 0
    assert names(out) == EVERYTHING
    page = (out / "README.md").read_text(encoding="utf-8")
    for name in (*command.FIGURES, "tokens.html"):
        assert f"({name})" in page
    assert f"verl-twgrpo report {full_run} --out {out}" in page
    assert "Missing" not in page
    assert "5 figures, tokens.html" in capsys.readouterr().out
    assert f"--out {out}" in (out / "tokens.html").read_text(encoding="utf-8")


def test_the_table_has_the_columns_of_table_3(full_run, tmp_path):
    run(full_run, "--out", tmp_path / "out")
    table = (tmp_path / "out" / "table3.md").read_text(encoding="utf-8").splitlines()
    assert table[0] == (
        "| run | step | clevrer single acc % | clevrer multiple acc % | clevrer multiple soft % | clevrer all acc % |"
        " clevrer all soft % | mmvu acc % |"
    )
    assert table[2].startswith("| full/run | 2 | 100.0 [20.7, 100.0] | 0.0 [0.0, 79.3] | 50.0 [50.0, 50.0] | 50.0 [")
    (row,) = csv.DictReader((tmp_path / "out" / "table3.csv").open(encoding="utf-8"))
    assert (row["run"], row["step"], row["clevrer all soft"], row["clevrer all soft_n"]) == (
        "full/run",
        "2",
        "0.75",
        "2",
    )
    assert (float(row["mmvu acc"]), float(row["mmvu acc_high"])) == (1.0, 1.0)


def test_several_runs_stand_side_by_side(full_run, make_run, tmp_path, capsys):
    plain = make_run(
        "plain/run",
        scalars={"critic/score/mean": {1: 0.5}, "response_length/mean": {1: 9.0}},
        rollouts={1: {"u": [0.0, 1.0]}},
        validation={1: [("clevrer", "A", "A")]},
    )
    out = tmp_path / "out"
    assert run(full_run, plain, "--out", out) == 0
    assert names(out) == EVERYTHING
    rows = list(csv.DictReader((out / "table3.csv").open(encoding="utf-8")))
    assert [row["run"] for row in rows] == ["full/run", "plain/run"]
    assert rows[1]["mmvu acc"] == ""
    assert "| – |" in (out / "table3.md").read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert "missing: plain/run: no tw_grpo/step_*.parquet" in printed
    assert "- plain/run: no tw_grpo/step_*.parquet" in (out / "README.md").read_text(encoding="utf-8")


def test_what_is_there_is_reported_and_the_rest_is_said_to_be_missing(full_run, tmp_path, capsys):
    for name in ("tensorboard", "rollouts", "validation"):
        shutil.rmtree(full_run / name)
    out = tmp_path / "out"
    assert run(full_run, "--out", out) == 0
    assert names(out) == EVERYTHING - {"validation.png", "table3.md", "table3.csv"}
    printed = capsys.readouterr().out
    for part in (
        "no TensorBoard event files",
        "no rollouts/*.jsonl",
        "no validation/*.jsonl",
        "validation.png: no run",
    ):
        assert part in printed


def test_a_run_that_was_only_validated_gets_its_accuracies(make_run, tmp_path):
    folder = make_run("val_only", validation={0: [("clevrer", "A", "A"), ("clevrer", "", "A")]})
    with open(folder / "validation" / "0.jsonl", "a", encoding="utf-8") as file:
        file.write('{"output": "B", "gts": "A", "step": 0, "id": "0", "benchmark": "clevrer"}\n')
    out = tmp_path / "out"
    assert run(folder, "--out", out) == 0
    assert names(out) == {"validation.png", "table3.md", "table3.csv", "README.md", *SITE}
    page = (out / "README.md").read_text(encoding="utf-8")
    assert "0.jsonl: line 2: ground truth is empty" in page
    assert "0.jsonl: 1 duplicate rows of a problem were dropped" in page


def test_nothing_is_overwritten_without_force_and_an_old_report_leaves_nothing_behind(full_run, tmp_path):
    out = tmp_path / "out"
    run(full_run, "--out", out)
    (out / "notes.txt").write_text("mine")
    before = (out / "reward.png").read_bytes()
    with pytest.raises(FileExistsError, match="reward.png exists; give --force"):
        run(full_run, "--out", out)
    assert (out / "reward.png").read_bytes() == before
    shutil.rmtree(full_run / "validation")
    assert run(full_run, "--out", out, "--force") == 0
    assert names(out) == EVERYTHING - {"validation.png", "table3.md", "table3.csv"} | {"notes.txt"}


def test_a_folder_that_holds_no_run_leaves_an_older_report_as_it_is(full_run, tmp_path):
    out = tmp_path / "out"
    run(full_run, "--out", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: nothing of a run"):
        run(tmp_path / "empty", "--out", out, "--force")
    assert names(out) == EVERYTHING


def test_the_same_run_gives_the_same_tables_and_heat_map(full_run, tmp_path):
    out = tmp_path / "out"
    run(full_run, "--out", out)
    first = {name: (out / name).read_bytes() for name in ("table3.csv", "table3.md", "tokens.html")}
    run(full_run, "--out", out, "--force")
    assert {name: (out / name).read_bytes() for name in first} == first
