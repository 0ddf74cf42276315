"""``verl-twgrpo eval`` from the command line on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from verl_twgrpo.evaluation import command

RELEASED = Path(__file__).resolve().parents[1] / "released"
ROW = {"input": "q", "gts": "A,C", "score": 1.0, "step": 4, "benchmark": "clevrer", "accuracy": 1.0}


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def dump(tmp_path):
    def write(name, *outputs, extra=""):
        rows = [json.dumps(ROW | {"output": output, "id": f"q{k}"}) for k, output in enumerate(outputs)]
        path = tmp_path / name
        path.write_text("\n".join(rows) + "\n" + extra, encoding="utf-8")
        return path

    return write


def test_tables_and_json_hold_the_same_numbers(dump, tmp_path, capsys):
    path = dump("4.jsonl", "<answer>A,C</answer>", "A", "none of these", "<answer>A,C</answer>")
    assert run(path, "--json", tmp_path / "out.json", "--seed", 5) == 0
    printed = capsys.readouterr().out
    assert "| clevrer | all | 4 | 50.0 [15.0, 85.0] | 62.5 [" in printed
    assert "parser: strict grammar + bare, for every row alike" in printed
    assert "accuracy differs from the stored one: 2 rows" in printed
    assert f"{path}: line 2: problem q1: stored accuracy 1, here 0" in printed
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    score = report["scores"]["clevrer"]["all"]
    assert (score["n"], score["strict"], score["soft"], score["unparsable"]) == (4, 0.5, 0.625, 1)
    assert (report["parser_rules"], report["bootstrap_seed"]) == (["strict", "bare"], 5)
    assert [row["id"] for row in report["stored_score_differs"]] == ["q1", "q2"]


def test_rows_left_out_are_told_and_unreadable_ones_make_the_exit_code_one(dump, capsys):
    extra = json.dumps(ROW | {"output": "A", "id": "q0"}) + "\n" + json.dumps(ROW | {"output": "A"}) + "\n{broken\n"
    path = dump("4.jsonl", "A", extra=extra)
    assert run(path) == 1
    printed = capsys.readouterr().out
    assert "clevrer: 1 duplicate rows of a problem were dropped" in printed
    assert "1 rows have no problem id" in printed
    assert f"unreadable: 1 rows\n  {path}: line 4: not JSON" in printed


def test_a_long_list_of_unreadable_rows_is_cut_on_the_screen_but_not_in_the_file(dump, tmp_path, capsys):
    path = dump("4.jsonl", "A", extra="{\n" * 50)
    assert run(path, "--json", tmp_path / "out.json") == 1
    printed = capsys.readouterr().out
    assert "and 30 more (--json lists all)" in printed and "line 40:" not in printed
    assert len(json.loads((tmp_path / "out.json").read_text())["unreadable"]) == 50


def test_a_baseline_is_compared_problem_by_problem(dump, tmp_path, capsys):
    right, wrong = "<answer>A,C</answer>", "<answer>A,B</answer>"
    model = dump("model.jsonl", *[right] * 8, *[wrong] * 2, right)
    baseline = dump("baseline.jsonl", *[wrong] * 8, *[right] * 2)
    assert run(model, "--baseline", baseline, "--json", tmp_path / "out.json") == 0
    paired = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["paired"]["clevrer"]["all"]
    assert (paired["n"], paired["strict"]["only_first"], paired["strict"]["only_second"]) == (10, 8, 2)
    assert paired["strict"]["p_value"] == pytest.approx(0.109375)
    printed = capsys.readouterr().out
    assert "| clevrer | all | 10 | +60.0 [" in printed and "| 8 | 2 | 0.109 |" in printed


def test_nothing_is_overwritten_without_force(dump, tmp_path):
    path, out = dump("4.jsonl", "A"), tmp_path / "out.json"
    out.write_text("mine")
    with pytest.raises(FileExistsError, match="out.json exists; give --force"):
        run(path, "--json", out)
    assert out.read_text() == "mine"
    assert run(path, "--json", out, "--force") == 0
    assert "scores" in json.loads(out.read_text())


def test_the_parser_rules_can_be_chosen_for_all_rows(dump, capsys):
    path = dump("4.jsonl", "<answer>A and C</answer>", "A, C")
    expected = {"none": 2, "bare": 1, "and_word": 1, "bare, and_word": 0, "all": 0}
    for rules, unparsable in expected.items():
        assert run(path, "--lenient", rules) == 0
        assert f"| {unparsable} |\n\n" in capsys.readouterr().out, rules
    with pytest.raises(ValueError, match="lenient: .* rules among and_word, answer_in_thinking"):
        run(path, "--lenient", "bear")


def test_a_released_summary_is_refused_with_the_script_that_reads_it():
    with pytest.raises(
        ValueError, match=r"metrics\.json: a summary has no answers .*recipes/released_files/summaries\.py"
    ):
        run(RELEASED / "stored_metrics.json")


def test_released_files_of_several_benchmarks_are_told_apart(capsys):
    names = ("mmvu_zeroshot", "mvbench_zeroshot")
    assert run(*(RELEASED / f"{name}.jsonl" for name in names)) == 0
    printed = capsys.readouterr().out
    for line in ("| mmvu | all | 100 | 66.0", "| mvbench | all | 100 | 63.0"):
        assert line in printed


@pytest.mark.slow
def test_evaluation_imports_neither_verl_nor_torch():
    import subprocess
    import sys

    code = (
        "import verl_twgrpo.evaluation.command, verl_twgrpo.report.command, sys;"
        "print({'verl', 'torch', 'matplotlib'} & set(sys.modules))"
    )
    process = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert process.stdout == "set()\n"
