"""What the study's runs left behind, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from verl_twgrpo.mini_clevrer.study.runs import BLANK, SEEN, read_study


def test_runs_come_in_the_order_of_arms_and_seeds_and_unfinished_ones_are_left_out(whole_study):
    (whole_study / "runs" / "tw_grpo-s1" / "finished.json").unlink()
    (whole_study / "runs" / "notes").mkdir()
    names = [(run.arm, run.seed) for run in read_study(whole_study).runs]
    assert names == [
        ("start", None),
        ("grpo_soft", 1),
        ("grpo_soft", 2),
        ("tw_grpo", 2),
        ("alpha_0", 1),
        ("blind", 1),
    ]


def test_answers_are_scored_by_question_whatever_their_order_in_the_dump(make_study, dump):
    rows = dump("q0 q2") + dump("q1", "mini_clevrer_blank", otherwise="A,B,C")
    study = read_study(make_study({"start": ({0: rows[::-1]}, {})}))
    (start,) = study.runs
    assert start.answers[0, SEEN].strict_N.tolist() == [1, 0, 1, 0, 0, 0]
    assert start.answers[0, SEEN].soft_N.tolist() == [1, 0, 1, 0.5, 0, 0]
    assert start.answers[0, BLANK].strict_N.tolist() == [0, 1, 0, 0, 0, 0]


def test_an_answer_that_the_reward_does_not_read_is_wrong(make_study, dump):
    rows = dump("q0 q1 q2 q3 q4 q5")
    rows[0]["output"] = "A"
    (start,) = read_study(make_study({"start": ({0: rows}, {})})).runs
    assert start.answers[0, SEEN].strict_N.tolist() == [0, 1, 1, 1, 1, 1]


def test_kinds_of_question(whole_study):
    masks = read_study(whole_study).masks()
    found = {kind: np.flatnonzero(mask_N).tolist() for kind, mask_N in masks.items()}
    assert found == {"single": [0, 1], "multiple": [2, 3, 4, 5], "all": [0, 1, 2, 3, 4, 5], "differs": [1, 3, 4]}


def cut_line(root):
    path = root / "runs" / "tw_grpo-s2" / "validation" / "4.jsonl"
    path.write_text(path.read_text()[:-40])
    return r"tw_grpo-s2/validation/4\.jsonl: line 12: not JSON"


def cut_rows(root):
    path = root / "runs" / "tw_grpo-s2" / "validation" / "4.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))
    return r"tw_grpo-s2/validation/4\.jsonl: 2 of 6 questions \(seen frames\) have no answer, first q4"


def empty_dump(root):
    (root / "runs" / "start" / "validation" / "0.jsonl").write_text("")
    return r"start/validation/0\.jsonl: no readable row"


def other_truth(root):
    path = root / "runs" / "start" / "validation" / "0.jsonl"
    path.write_text(path.read_text().replace('"gts": "A,C"', '"gts": "A"'))
    return r"start/validation/0\.jsonl: line 4: no such question with this truth \(q3\)"


def other_benchmark(root):
    path = root / "runs" / "start" / "validation" / "0.jsonl"
    path.write_text(path.read_text().replace("mini_clevrer_blank", "mmvu"))
    return r"start/validation/0\.jsonl: line 7: benchmark mmvu is not one of"


def name_without_step(root):
    (root / "runs" / "start" / "validation" / "last.jsonl").write_text("{}")
    return r"start/validation/last\.jsonl: need a step as the name"


def broken_record(root):
    (root / "runs" / "blind-s1" / "finished.json").write_text('{"seconds": 9')
    return r"blind-s1/finished\.json: not JSON"


def record_without_seconds(root):
    (root / "runs" / "blind-s1" / "finished.json").write_text("{}")
    return r"blind-s1/finished\.json: need an object with the number 'seconds'"


def broken_events(root):
    for path in (root / "runs" / "blind-s1" / "tensorboard").iterdir():
        path.write_bytes(b"")
    return r"blind-s1/tensorboard: the event files hold no scalar"


def broken_questions(root):
    path = root / "data" / "validation.parquet"
    path.write_bytes(path.read_bytes()[:200])
    return r"data/validation\.parquet: not a parquet file"


def unknown_arm(root):
    (root / "runs" / "blind-s1").rename(root / "runs" / "deaf-s1")
    return r"runs/deaf-s1: not a run of the study; need start, or ARM-sSEED"


@pytest.mark.parametrize(
    "damage",
    [
        *(cut_line, cut_rows, empty_dump, other_truth, other_benchmark, name_without_step),
        *(broken_record, record_without_seconds, broken_events, broken_questions, unknown_arm),
    ],
)
def test_damage_is_named(whole_study, damage):
    reason = damage(whole_study)
    with pytest.raises(ValueError, match=reason):
        read_study(whole_study)


def test_missing_events_are_named(whole_study):
    for path in (whole_study / "runs" / "blind-s1" / "tensorboard").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="blind-s1/tensorboard: no tensorboard events"):
        read_study(whole_study)


def test_questions_without_what_was_observed_are_refused(whole_study):
    from verl_twgrpo.data.parquet import read_rows, write_rows

    path = whole_study / "data" / "validation.parquet"
    rows = read_rows(path)
    rows[2]["extra_info"]["provenance"] = json.dumps({"seed": 0})
    write_rows(rows, path, force=True)
    with pytest.raises(ValueError, match=r"validation\.parquet: row 2 \(q2\): provenance has no list 'observed'"):
        read_study(whole_study)
