"""Curves, seconds by phase, and whether alpha = 0 follows token-level GRPO."""

from __future__ import annotations

import pytest

from verl_twgrpo.mini_clevrer.study.runs import Answers, Study, StudyRun
from verl_twgrpo.mini_clevrer.study.scalars import curve_rows, follows_rows, step_seconds, timing_rows


def study(*runs):
    return Study((), tuple(StudyRun(arm, seed, {}, {}, logged) for arm, seed, logged in runs))


def test_a_curve_has_a_row_a_training_step_and_none_where_nothing_was_logged(scalars):
    logged = scalars(3, actor__entropy=0.75)
    logged["tw_grpo/accuracy"][2] = 0.5
    logged["val-core/mini_clevrer/acc/mean@1"] = {0: 0.1}
    rows = curve_rows(study(("grpo_soft", 1, logged)))
    assert [(row.step, row.strict) for row in rows] == [(1, 0.25), (2, 0.5), (3, 0.25)]
    assert (rows[0].reward, rows[0].reward_spread, rows[0].response_length, rows[0].soft) == (1.25, 0.5, 20.0, 0.375)
    assert (rows[0].entropy, rows[0].format, rows[0].weight_mean) == (0.75, None, None)


def test_the_first_two_steps_are_not_timed_and_saving_is_taken_off(scalars):
    logged = scalars(4)
    logged["timing_s/step"].update({1: 90.0, 2: 50.0, 4: 5.5})
    logged["timing_s/save_checkpoint"] = {4: 1.5}
    logged["timing_s/testing"] = {4: 30.0}
    seconds = step_seconds(logged)
    assert seconds["step"] == {3: 4.0, 4: 4.0}
    assert seconds["step without gen"] == {3: 2.0, 4: 2.0}
    assert seconds["weights"] == {}


def test_weights_are_the_head_pass_the_weights_and_the_dump_and_are_set_against_the_step(scalars):
    weighted = {"timing_s__tw_grpo": 0.25, "timing_s__tw_grpo_head_pass": 0.125, "timing_s__tw_grpo_dump": 0.125}
    runs = [("grpo_soft", 1, scalars(5)), ("tw_grpo", 1, scalars(5, **weighted, timing_s__step=4.5))]
    rows = {(row.arm, row.phase): row for row in timing_rows(study(*runs))}
    weights = rows["tw_grpo", "weights"]
    assert (weights.runs, weights.steps, weights.seconds, weights.ratio) == (1, 3, 0.5, None)
    assert (weights.share_of_step, weights.share_without_gen) == (pytest.approx(0.5 / 4.5), pytest.approx(0.5 / 2.5))
    assert rows["tw_grpo", "step"].ratio == pytest.approx(4.5 / 4)
    assert rows["tw_grpo", "step without gen"].ratio == pytest.approx(2.5 / 2)
    assert ("grpo_soft", "weights") not in rows and rows["grpo_soft", "step"].ratio == 1


def test_runs_count_alike_and_ratios_are_of_the_same_seed(scalars):
    runs = [
        ("grpo_soft", 1, scalars(5, timing_s__step=4.0)),
        ("grpo_soft", 2, scalars(50, timing_s__step=8.0)),
        ("grpo_soft", 3, scalars(5, timing_s__step=5.0)),
        ("tw_grpo", 1, scalars(5, timing_s__step=4.4)),
        ("tw_grpo", 2, scalars(5, timing_s__step=8.0)),
    ]
    rows = {(row.arm, row.phase): row for row in timing_rows(study(*runs))}
    base, ours = rows["grpo_soft", "step"], rows["tw_grpo", "step"]
    assert (base.runs, base.seconds, base.seconds_low, base.seconds_high) == (3, 5.0, 4.0, 8.0)
    assert (ours.ratio, ours.ratio_low, ours.ratio_high) == pytest.approx((1.05, 1.0, 1.1))


def test_runs_too_short_to_time_have_no_row(scalars):
    assert timing_rows(study(("tw_grpo", 1, scalars(2)))) == []


def test_alpha_0_that_follows_differs_nowhere(scalars):
    texts = Answers(None, None, ("a", "b"))
    runs = [
        StudyRun(arm, 1, {}, {(4, "seen"): texts, (4, "blank"): texts}, scalars(4)) for arm in ("grpo_soft", "alpha_0")
    ]
    (row,) = follows_rows(Study((), tuple(runs)))
    assert (row.seed, row.steps, row.first_difference) == (1, 4, None)
    assert (row.reward, row.response_length, row.grad_norm, row.pg_loss) == (0, 0, 0, 0)
    assert (row.validation_step, row.n, row.equal_answers) == (4, 4, 1.0)


def test_alpha_0_that_leaves_its_baseline_is_caught_at_its_first_step_and_by_its_answers(scalars):
    logged = scalars(6)
    logged["actor/grad_norm"].update({3: 0.5 + 1e-6, 5: 0.75})
    logged["critic/score/mean"].update({4: 1.0})
    del logged["actor/pg_loss"]
    answers = [Answers(None, None, texts) for texts in (("a", "b", "c", "d"), ("a", "b", "c", "e"))]
    runs = [
        StudyRun("grpo_soft", 2, {}, {(4, "seen"): answers[0], (6, "seen"): answers[0]}, scalars(5)),
        StudyRun("alpha_0", 2, {}, {(4, "seen"): answers[1]}, logged),
        StudyRun("alpha_0", 3, {}, {}, logged),
    ]
    (row,) = follows_rows(Study((), tuple(runs)))
    assert (row.seed, row.steps, row.first_difference) == (2, 5, 3)
    assert (row.reward, row.response_length, row.grad_norm, row.pg_loss) == (0.25, 0, 0.25, None)
    assert (row.validation_step, row.n, row.equal_answers) == (4, 4, 0.75)
