"""Whatever stands in what a run left behind: it is drawn, named as missing, or one sentence. Never a traceback."""

from __future__ import annotations

import copy
import json
import random

import pyarrow
import pyarrow.parquet
import pytest

from verl_twgrpo import cli
from verl_twgrpo.report import figures, series
from verl_twgrpo.report.reading import read_run
from verl_twgrpo.report.soundness import dump_problem

VALUES = [None, "", "x", "a" * 5000, 0, -1, 2**62, 1.5, float("nan"), float("inf"), True, [], ["x"], [None], [1.0]]
VALUES += [{"x": 1}, [[[[1]]]], "\ud83d\ude00"]


def mutated(row: dict, rng: random.Random) -> dict:
    row = copy.deepcopy(row)
    field = rng.choice(list(row))
    if rng.random() < 0.15:
        del row[field]
    elif isinstance(row[field], list) and row[field] and rng.random() < 0.4:
        row[field][rng.randrange(len(row[field]))] = rng.choice(VALUES)
    else:
        row[field] = copy.deepcopy(rng.choice(VALUES))
    return row


@pytest.fixture
def no_drawing(monkeypatch):
    """The numbers of the figures are made, the pictures are not: they take a second each."""
    for name in ("reward_figure", "length_figure", "weights_figure", "divergence_figure", "validation_figure"):
        monkeypatch.setattr(figures, name, lambda *_: None)


def numbers(folder) -> None:
    run = read_run(folder, "r")
    for make in (series.reward_mean, series.reward_spread, series.response_length, series.divergence):
        make(run)
    if run.groups:
        series.weights_by_position(run.groups)


@pytest.mark.slow
def test_no_dump_and_no_line_ends_in_a_traceback(make_run, schema, no_drawing, group_rows, tmp_path, capsys):
    rng = random.Random(0)
    answers = [("clevrer", "A,C", "A"), ("mmvu", "D", "C")]
    folder = make_run(
        "run", dumps={1: group_rows(1, "u")}, rollouts={1: {"u": (2.0, 1.5, 0.0)}}, validation={0: answers, 1: answers}
    )
    dump = folder / "tw_grpo" / "step_000001.parquet"
    lines = {path: path.read_text().splitlines() for path in folder.rglob("*.jsonl")}
    left_out = 0
    for _ in range(250):
        rows = group_rows(1, "u")
        at = rng.randrange(len(rows))
        # in every row the field's type in the file is another one; in one row it is null, or no file at all
        rows = [mutated(row, random.Random(at)) if rng.random() < 0.5 or k == at else row for k, row in enumerate(rows)]
        try:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), dump)
        except (pyarrow.ArrowException, OverflowError):
            continue
        for path, whole in lines.items():
            changed = list(whole)
            k = rng.randrange(len(changed))
            changed[k] = json.dumps(mutated(json.loads(changed[k]), rng))[: rng.choice([None, None, None, 9])]
            path.write_text("\n".join(changed), encoding="utf-8")
        assert cli.main(["report", str(folder), "--out", str(tmp_path / "out"), "--force"]) in (0, 2)
        said = capsys.readouterr()
        problem = dump_problem(dump, 1)
        if problem:
            left_out += 1
            assert problem in said.out + said.err
        else:
            numbers(folder)
    assert left_out > 50


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"reward": "much"}, "column reward: need numbers, got string"),
        ({"weight": [1.0]}, "column weight: a response has another number of values than tokens"),
        ({"weight": None}, "column weight: need lists of numbers, got null"),
        ({"tokens": [None] * 4}, "column tokens: need lists of texts, got list<"),
        ({"entropy": [1.0, None]}, "column entropy: a token without a value"),
        ({"step": 3}, "column step: the file is named after step 1, its rows are of step 3"),
    ],
)
def test_the_column_and_what_is_wrong_with_it_are_said(change, problem, group_rows, tmp_path):
    path = tmp_path / "step_000001.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row | change for row in group_rows(1, "u")]), path)
    assert dump_problem(path, 1).startswith(problem)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(group_rows(1, "u")), path)
    assert dump_problem(path, 1) == ""
