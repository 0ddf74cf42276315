"""The numbers that reach verl's logger, by hand."""

from __future__ import annotations

import pytest
import torch

from verl_twgrpo.algorithm.weightings import Group
from verl_twgrpo.training.metrics import class_metrics, packing_metrics, reward_metrics, spread_metrics, weight_metrics


def group(uid, lengths, divergence, weights):
    """A group whose divergence and weights are those of the position."""
    columns = {"divergence": [torch.tensor(divergence[:length]) for length in lengths]}
    masks = [torch.ones(length, dtype=torch.bool) for length in lengths]
    made = Group(uid, list(range(len(lengths))), masks, columns)
    made.weights = [torch.tensor(weights[:length]) for length in lengths]
    return made


def test_weight_metrics_count_tokens_not_positions():
    groups = [group("a", [2, 4], [0.0, 1.0, 2.0, 3.0], [1.0, 1.2, 1.4, 1.6]), group("b", [1, 1], [0.0], [1.0])]
    metrics = weight_metrics(groups)
    total = 2 * 1.0 + 2 * 1.2 + 1.4 + 1.6 + 2
    assert metrics["tw_grpo/weight_mean"] == pytest.approx(total / 8)
    assert metrics["tw_grpo/weight_max"] == pytest.approx(1.6)
    assert metrics["tw_grpo/tail_weight_share"] == pytest.approx(3.0 / total)
    assert metrics["tw_grpo/divergence_mean"] == pytest.approx((2 * 1.0 + 2.0 + 3.0) / 8)
    assert metrics["tw_grpo/live_fraction"] == pytest.approx(8 / 10)
    assert metrics["tw_grpo/degenerate_groups"] == pytest.approx(0.5)
    assert metrics["tw_grpo/nan_tokens"] == 0
    assert weight_metrics([]) == {}


def test_how_much_the_model_looks_at_the_video_is_the_mean_difference_of_log_probs():
    made = group("a", [2, 1], [0.0, 0.0], [1.0, 1.0])
    made.columns = {
        "old_log_probs": [torch.tensor([-1.0, -2.0]), torch.tensor([-3.0])],
        "log_probs_blank": [torch.tensor([-1.5, -1.0]), torch.tensor([-3.0])],
    }
    assert weight_metrics([made])["tw_grpo/contrast_blank"] == pytest.approx(1.5 / 3)
    assert "tw_grpo/contrast_blank" not in weight_metrics([group("a", [1], [0.0], [1.0])])


def test_a_group_with_a_column_that_is_not_a_number_is_not_degenerate():
    broken = group("a", [2, 2], [float("nan"), 0.0], [1.0, 1.0])
    assert weight_metrics([broken], nan_tokens=2)["tw_grpo/degenerate_groups"] == 0
    assert weight_metrics([broken], nan_tokens=2)["tw_grpo/nan_tokens"] == 2


def test_spread_is_within_groups_and_leaves_padding_out():
    rewards = torch.tensor([1.0, 2.0, 5.0, 5.0, 9.0])
    metrics = spread_metrics(rewards, ["a", "a", "b", "b", None])
    assert metrics["tw_grpo/group_reward_std"] == pytest.approx(0.5**0.5 / 2)
    assert metrics["tw_grpo/groups_without_spread"] == 0.5
    assert spread_metrics(rewards[:1], [None]) == {}


def test_reward_means_leave_out_what_does_not_apply():
    metrics = reward_metrics([{"accuracy": 1.0, "format": 1.0}, {"accuracy": 0.0, "format": None}])
    assert metrics == {"tw_grpo/accuracy": 0.5, "tw_grpo/format": 1.0}


def test_every_number_of_a_task_is_logged_by_data_source_and_task():
    infos = [
        {
            "accuracy": 1.0,
            "soft_accuracy": 0.5,
            "iou": 0.5,
            "count": None,
            "id": "q1",
            "benchmark": "star",
            "task": "when",
        },
        {"accuracy": 0.0, "soft_accuracy": 0.1, "iou": 0.1, "id": "q2", "benchmark": "star", "task": "when"},
        {"accuracy": 1.0, "format": 1.0, "words": 7, "id": "q3", "benchmark": "mmvu", "task": "toy"},
        {"accuracy": 0.0, "benchmark": "mmvu"},
        {},  # a failed rollout
    ]
    assert reward_metrics(infos) == pytest.approx(
        {
            "tw_grpo/accuracy": 0.5,
            "tw_grpo/soft_accuracy": 0.3,
            "tw_grpo/format": 1.0,
            "reward/star/when/accuracy": 0.5,
            "reward/star/when/soft_accuracy": 0.3,
            "reward/star/when/iou": 0.3,
            "reward/mmvu/toy/accuracy": 1.0,
            "reward/mmvu/toy/format": 1.0,
            "reward/mmvu/toy/words": 7.0,
            "reward/mmvu/multiple_choice/accuracy": 0.0,
        }
    )


def test_packing_adds_up_over_ranks_and_says_nothing_where_nothing_was_packed():
    metrics = packing_metrics([{"tokens": 10, "tokens_unpacked": 30}, {"tokens": 20, "tokens_unpacked": 60}])
    assert metrics == {"packed_groups/tokens": 30, "packed_groups/tokens_unpacked": 90, "packed_groups/ratio": 3}
    assert packing_metrics([{"tokens": 0, "tokens_unpacked": 0}]) == {}


def test_the_weight_of_classes_of_tokens_by_hand():
    group = Group("a", [4, 7], [torch.tensor([True, True, False]), torch.tensor([True, True])])
    group.weights = [torch.tensor([1.0, 3.0, 9.0]), torch.tensor([2.0, 2.0])]
    classes = {4: ["first token", "verdict word", "verdict word"], 7: ["option letter", "word"]}
    assert class_metrics([group], classes) == {
        "tw_grpo/weight_mean_verdict_word": 3.0, "tw_grpo/weight_share_verdict_word": 3 / 8,
        "tw_grpo/weight_mean_option_letter": 2.0, "tw_grpo/weight_share_option_letter": 2 / 8,
    }  # fmt: skip
