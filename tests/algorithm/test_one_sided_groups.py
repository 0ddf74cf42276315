"""SOVA's virtual anchor and EMA-GRPO's deviation by task, against plain references in Python's floats."""

from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_twgrpo.algorithm import group_normalised_advantage
from verl_twgrpo.algorithm.anchors import Anchors, anchored_advantage
from verl_twgrpo.algorithm.task_deviation import TaskMoments, task_normalised_advantage

few = settings(max_examples=40)
rewards = st.lists(st.integers(0, 7).map(lambda eighths: eighths / 4), min_size=2, max_size=8)


def sova_by_the_text(values, accuracies, formats):
    """A + lambda (A_virtual - A), one response at a time."""
    spread = statistics.stdev(values)
    plain = [(r - statistics.fmean(values)) / (spread + 1e-4) if spread else 0.0 for r in values]
    if all(a == 1 for a in accuracies) and all(f == 1 for f in formats):
        anchor, strength = 1.5, 0.0625
    elif not any(accuracies):
        anchor, strength = 2.0, 0.03125
    else:
        return plain
    joined = [*values, anchor]
    virtual = [(r - statistics.fmean(joined)) / (statistics.stdev(joined) + 1e-4) for r in values]
    return [a + strength * (v - a) for a, v in zip(plain, virtual, strict=True)]


@few
@given(rewards, st.sampled_from(["right", "unformed", "wrong", "mixed"]))
def test_sova_is_the_text(values, kind):
    n = len(values)
    accuracies = {"right": [1.0] * n, "unformed": [1.0] * n, "wrong": [0.0] * n, "mixed": [1.0] + [0.0] * (n - 1)}[kind]
    formats = [0.0 if kind == "unformed" else 1.0] * n
    if kind == "right":
        values = [2.0] * n
    rewards_B = torch.tensor(values)
    scores = [{"accuracy": a, "format": f} for a, f in zip(accuracies, formats, strict=True)]
    plain_B = group_normalised_advantage(rewards_B, ["g"] * n, 1e-4)
    anchored_B = anchored_advantage(plain_B, rewards_B, ["g"] * n, scores, Anchors())
    torch.testing.assert_close(anchored_B, torch.tensor(sova_by_the_text(values, accuracies, formats)))
    if kind == "right":
        assert (anchored_B > 0).all()
    if kind == "wrong" and len(set(values)) == 1:
        assert (anchored_B < 0).all()
    if kind in ("unformed", "mixed"):
        assert torch.equal(anchored_B, plain_B)


def test_an_anchor_touches_neither_other_groups_nor_padding():
    rewards_B = torch.tensor([2.0, 0.0, 2.0, 1.0, 2.0])
    scores = [{"accuracy": 1.0}, None, {"accuracy": 1.0}, {"accuracy": 0.5}, {"accuracy": 1.0}]
    ids = ["a", "pad", "a", "b", "b"]
    plain_B = group_normalised_advantage(rewards_B, ids)
    anchored_B = anchored_advantage(plain_B, rewards_B, ids, scores, Anchors())
    assert (anchored_B[[0, 2]] > 0).all()
    assert torch.equal(anchored_B[[1, 3, 4]], plain_B[[1, 3, 4]])


@pytest.mark.parametrize(
    ("value", "accuracy", "message"),
    [
        (1.0, 1.0, r"anchors\.right=1\.5: the rewards of a group of right responses are 1 to 1; .* below"),
        (2.0, 0.0, r"anchors\.wrong=2: .* above"),
        (2.0, None, r"anchors: the reward reports no accuracy"),
    ],
)
def test_an_anchor_that_would_push_the_wrong_way_is_refused(value, accuracy, message):
    scores = [{"accuracy": accuracy}] * 2
    with pytest.raises(ValueError, match=message):
        anchored_advantage(torch.zeros(2), torch.full((2,), value), ["a", "a"], scores, Anchors())


# ---- the deviation of a task


@few
@given(st.lists(st.tuples(rewards, rewards), min_size=1, max_size=4))
def test_the_deviation_of_a_task_is_that_of_moving_averages(steps):
    moments = TaskMoments(0.9)
    first, second = {}, {}
    for groups in steps:
        values, tasks, ids = [], [], []
        for task, group in zip(("qa", "grounding"), groups, strict=True):
            m1, m2 = statistics.fmean(group), statistics.fmean([r * r for r in group])
            first[task] = 0.9 * first.get(task, m1) + 0.1 * m1
            second[task] = 0.9 * second.get(task, m2) + 0.1 * m2
            values, tasks, ids = values + group, tasks + [task] * len(group), ids + [task] * len(group)
        rewards_B = torch.tensor([*values, 100.0])
        tasks, ids = [*tasks, None], [*ids, "pad"]
        moments.update(rewards_B, tasks)
        plain_B = group_normalised_advantage(rewards_B, ids)
        got_B = task_normalised_advantage(plain_B, rewards_B, ids, tasks, moments, limit=2.0)
        for task in ("qa", "grounding"):
            rows = [row for row, name in enumerate(tasks) if name == task]
            of_task = [values[row] for row in rows]
            variance = max(second[task] - first[task] ** 2, 0)
            centred = [r - statistics.fmean(of_task) for r in of_task]
            expected = plain_B[rows]
            if max(map(abs, centred)) <= 2.0 * variance**0.5 * (1 - 1e-5) and any(centred):
                expected = torch.tensor([c / variance**0.5 for c in centred])
            elif max(map(abs, centred)) <= 2.0 * variance**0.5 * (1 + 1e-5):
                continue  # at the limit itself rounding decides
            torch.testing.assert_close(got_B[rows], expected, rtol=1e-4, atol=1e-5)


def test_moments_go_into_a_checkpoint_and_come_back():
    moments = TaskMoments()
    moments.update(torch.tensor([0.0, 1.0, 2.0]), ["qa", "qa", "grounding"])
    back = TaskMoments()
    back.restore(moments.state)
    for one in (moments, back):
        one.update(torch.tensor([1.0, 1.0]), ["qa", "qa"])
    assert back.state == moments.state
    assert back.deviation("qa") == pytest.approx((0.505 - 0.505**2) ** 0.5)
    with pytest.raises(ValueError, match="cannot read"):
        back.restore({"qa": 1})
