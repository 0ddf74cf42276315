"""Accuracies by arm, controls, and paired differences."""

from __future__ import annotations

from itertools import combinations
from statistics import mean

import pytest

from verl_twgrpo.mini_clevrer.study.accuracy import (
    accuracy_rows,
    control_rows,
    difference_rows,
    summary_rows,
    uniform_scores,
)
from verl_twgrpo.mini_clevrer.study.runs import Question, read_study
from verl_twgrpo.rewards import exact_reward, soft_reward


def only(rows, **values):
    (row,) = [row for row in rows if all(getattr(row, name) == value for name, value in values.items())]
    return row


def test_every_run_step_and_kind_has_its_accuracy(whole_study):
    rows = accuracy_rows(read_study(whole_study))
    assert len({(r.arm, r.seed, r.step, r.frames, r.questions) for r in rows}) == len(rows)
    # four kinds of question with frames and without: the start once, four runs twice, two runs once
    assert len(rows) == 4 * 2 * (1 + 4 * 2 + 2)
    row = only(rows, arm="tw_grpo", seed=1, step=4, frames="seen", questions="multiple")
    assert (row.n, row.strict, row.soft) == (4, 0.75, 0.75)
    row = only(rows, arm="start", frames="seen", questions="all")
    assert (row.seed, row.step, row.n, row.strict, row.soft) == (None, 0, 6, 2 / 6, 2.5 / 6)


def test_an_arm_is_summed_up_over_its_seeds_at_its_last_step(whole_study):
    rows = summary_rows(read_study(whole_study))
    row = only(rows, arm="tw_grpo", frames="seen", questions="all")
    assert (row.step, row.seeds, row.n, row.interval) == (4, 2, 6, "seeds and questions")
    assert row.strict == pytest.approx((5 / 6 + 4 / 6) / 2)
    assert row.strict_low < row.strict < row.strict_high
    start = only(rows, arm="start", frames="blank", questions="single")
    assert (start.seeds, start.n, start.strict, start.interval) == (None, 2, 0.5, "questions")
    assert only(rows, arm="blind", frames="blank", questions="single").strict == 1
    assert only(rows, arm="alpha_0", frames="seen", questions="all").interval == "questions"


def test_an_arm_with_seeds_of_different_length_is_taken_where_all_are(whole_study):
    (whole_study / "runs" / "tw_grpo-s2" / "validation" / "4.jsonl").unlink()
    row = only(summary_rows(read_study(whole_study)), arm="tw_grpo", frames="seen", questions="all")
    assert (row.step, row.seeds, row.strict) == (2, 2, pytest.approx(2 / 6))


def test_expectation_of_a_uniform_set_is_the_mean_over_all_sets():
    letters = "ABCD"
    sets = [frozenset(chosen) for size in (1, 2, 3, 4) for chosen in combinations(letters, size)]
    for truth in sets:
        strict, soft = uniform_scores(Question("q", truth, frozenset(), options=4))
        assert strict == pytest.approx(mean(exact_reward(chosen, truth) for chosen in sets))
        assert soft == pytest.approx(mean(soft_reward(chosen, truth) for chosen in sets))


def test_controls(whole_study):
    rows = control_rows(read_study(whole_study))
    # B,C is the answer to two of six; C alone is half of three answers, and B alone one and half of three
    best = only(rows, arm="best_constant", questions="all")
    assert (best.strict, best.note.split(";")[0]) == (2 / 6, "strict B,C")
    assert best.soft == pytest.approx(max((1 + 0.5 * 3) / 6, (1 + 0.5 * 2) / 6, 2 / 6))
    assert best.note == "strict B,C; soft B"
    seen = only(rows, arm="copies_observed", questions="all")
    # right: q0, q2, q5; q3 is half right; q1 is wrong, and q4 has nothing observed
    assert (seen.strict, seen.soft) == (0.5, pytest.approx(3.5 / 6))
    differs = only(rows, arm="copies_observed", questions="differs")
    assert (differs.n, differs.strict) == (3, 0)
    assert only(rows, arm="uniform_set", questions="all").strict == pytest.approx(1 / 7)


def test_differences_are_paired_by_question_and_seed(whole_study):
    rows = difference_rows(read_study(whole_study))
    pairs = {(r.first, r.first_frames, r.second, r.second_frames) for r in rows}
    assert pairs == {
        ("grpo_soft", "seen", "start", "seen"),
        ("tw_grpo", "seen", "start", "seen"),
        ("alpha_0", "seen", "start", "seen"),
        ("blind", "blank", "start", "blank"),
        ("tw_grpo", "seen", "grpo_soft", "seen"),
        ("alpha_0", "seen", "grpo_soft", "seen"),
        ("start", "seen", "start", "blank"),
        ("grpo_soft", "seen", "grpo_soft", "blank"),
        ("tw_grpo", "seen", "tw_grpo", "blank"),
        ("grpo_soft", "seen", "blind", "blank"),
    }
    row = only(rows, first="tw_grpo", second="grpo_soft", questions="all")
    assert (row.step, row.seeds, row.n, row.strict) == (4, 2, 6, pytest.approx(0.5 / 6))
    assert row.strict_low == 0  # only one seed and one question differ
    gain = only(rows, first="grpo_soft", second="start", questions="all")
    assert (gain.step, gain.seeds, gain.strict) == (4, 2, pytest.approx(2 / 6))


def test_models_that_answer_alike_differ_by_exactly_nothing(whole_study):
    row = only(difference_rows(read_study(whole_study)), first="alpha_0", second="grpo_soft", questions="all")
    assert (row.seeds, row.interval) == (1, "questions")
    assert (row.strict, row.strict_low, row.strict_high, row.soft, row.soft_low, row.soft_high) == (0,) * 6


def test_a_shorter_arm_is_compared_at_the_step_that_both_have(whole_study):
    validation = whole_study / "runs" / "alpha_0-s1" / "validation"
    (validation / "4.jsonl").unlink()
    start = whole_study / "runs" / "start" / "validation" / "0.jsonl"
    (validation / "2.jsonl").write_text(start.read_text())
    rows = difference_rows(read_study(whole_study))
    row = only(rows, first="alpha_0", second="grpo_soft", questions="all")
    assert (row.step, row.strict) == (2, 0)


def test_arms_without_a_seed_in_common_are_not_compared(whole_study):
    (whole_study / "runs" / "alpha_0-s1").rename(whole_study / "runs" / "alpha_0-s7")
    rows = difference_rows(read_study(whole_study))
    assert not [row for row in rows if (row.first, row.second) == ("alpha_0", "grpo_soft")]
    assert [row for row in rows if (row.first, row.second) == ("alpha_0", "start")]
