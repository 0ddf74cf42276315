"""Reading what models wrote: both forms of rows, one row a problem, and what cannot be read is named."""

from __future__ import annotations

import json

import pytest

from verl_twgrpo.evaluation import read_predictions


def verl_row(**changes):
    row = {"input": "q", "output": "<answer>A</answer>", "gts": "A,C", "score": 1.0, "step": 4, "uid": "u_0_0"}
    return row | {"id": "q1", "benchmark": "clevrer", "accuracy": 0.0} | changes


def released_row(**changes):
    question = {"problem_id": 7, "options": ["A. x", "B. y"]}
    row = {"question": question, "ground_truth": "<answer>B</answer>", "model_output": "B", "accuracy_score": 1.0}
    return row | changes


def write(path, *rows):
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_a_row_of_verls_dump_is_read(tmp_path):
    (row,) = read_predictions([write(tmp_path / "4.jsonl", verl_row())]).rows
    assert (row.benchmark, row.id, row.truth, row.text, row.stored) == (
        "clevrer",
        "q1",
        frozenset("AC"),
        "<answer>A</answer>",
        0.0,
    )
    assert row.where.endswith("4.jsonl: line 1")


def test_a_released_row_is_read(tmp_path):
    (row,) = read_predictions([write(tmp_path / "checkpoint-500_eval_nextqa_eval.jsonl", released_row())]).rows
    assert (row.benchmark, row.id, row.truth, row.text, row.stored) == ("nextgqa", "7", frozenset("B"), "B", 1.0)


@pytest.mark.parametrize(
    ("name", "benchmark"),
    [
        ("Qwen2.5-VL-7B-Instruct_eval_MMVU_eval_zeroshot", "mmvu"),
        ("nextgqa_test", "nextgqa"),
        ("mini_clevrer_7", "mini_clevrer"),
        ("my_own", "my_own"),
    ],
)
def test_the_benchmark_of_a_released_file_is_in_its_name(tmp_path, name, benchmark):
    assert read_predictions([write(tmp_path / f"{name}.jsonl", released_row())]).rows[0].benchmark == benchmark


def test_of_several_rows_with_one_problem_the_first_counts_and_the_others_are_counted(tmp_path):
    path = write(
        tmp_path / "4.jsonl",
        verl_row(output="first"),
        verl_row(output="second"),
        verl_row(benchmark="star", output="another benchmark"),
        verl_row(output="third"),
    )
    found = read_predictions([path])
    assert [row.text for row in found.rows] == ["first", "another benchmark"]
    assert found.duplicates == {"clevrer": 2}


def test_a_dump_from_another_reward_is_read_as_of_an_unknown_benchmark(tmp_path):
    plain = {"input": "q", "output": "A", "gts": "A", "score": 1.0, "step": 4, "uid": "u_0_0"}
    (row,) = read_predictions([write(tmp_path / "4.jsonl", plain)]).rows
    assert (row.benchmark, row.id, row.stored) == ("unknown", None, None)


def test_rows_without_an_id_are_all_kept(tmp_path):
    found = read_predictions([write(tmp_path / "4.jsonl", *[verl_row(id=None)] * 3)])
    assert [row.id for row in found.rows] == [None] * 3
    assert not found.duplicates


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"output": "cut o', r"not JSON"),
        ("[1, 2]", "need an object with named fields, got list"),
        ({"text": "A"}, r"neither a row of verl's dump .* it has text"),
        (verl_row(gts=""), "ground truth is empty"),
        (verl_row(gts=None), "ground truth is a NoneType"),
        (verl_row(output=None), "output is a NoneType, need text"),
        (verl_row(step=[0]), "step is a list, need a number"),
        ("[" * 100_000, r"not JSON \(nested too deep\)"),
        (released_row(model_output=3), "model_output is a int, need text"),
        (released_row(ground_truth="<answer>E</answer>"), "E is not among the options A,B"),
        (released_row(ground_truth=None), "ground truth is a NoneType"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_and_left_out(tmp_path, row, reason):
    import re

    found = read_predictions([write(tmp_path / "4.jsonl", verl_row(), row, "", verl_row(id="q2"))])
    assert [row.id for row in found.rows] == ["q1", "q2"]
    assert len(found.unreadable) == 1
    assert re.search(rf"4\.jsonl: line 2: .*{reason}", found.unreadable[0]), found.unreadable


def test_predictions_of_two_steps_are_two_models(tmp_path):
    paths = [write(tmp_path / f"{step}.jsonl", verl_row(step=step, id=str(step))) for step in (0, 4)]
    with pytest.raises(ValueError, match="step 0 in .*0.jsonl, step 4 in .*4.jsonl; evaluate one step at a time"):
        read_predictions(paths)


def test_a_file_without_a_readable_row_is_an_error_with_the_first_reason(tmp_path):
    with pytest.raises(ValueError, match="no readable row .first reason: .*line 1: neither"):
        read_predictions([write(tmp_path / "a.jsonl", {"x": 1})])
    with pytest.raises(ValueError, match="a.jsonl: no readable row$"):
        read_predictions([write(tmp_path / "a.jsonl")])


def test_separators_that_json_allows_inside_a_text_do_not_cut_a_row(tmp_path):
    path = write(tmp_path / "4.jsonl", verl_row(output="one\u2028two\u0085three"))
    assert read_predictions([path]).rows[0].text == "one\u2028two\u0085three"
    path.write_text("\ufeff" + json.dumps(verl_row()) + "\r\n", encoding="utf-8")
    assert len(read_predictions([path]).rows) == 1
