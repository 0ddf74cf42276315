"""The example that explains TW-GRPO computes what the package computes, and learns."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from verl_twgrpo.algorithm.objective import weighted_clipped_objective
from verl_twgrpo.rewards import soft_reward

PATH = Path(__file__).resolve().parents[2] / "examples" / "tw_grpo_by_hand.py"
G, T = 4, 7


@pytest.fixture(scope="module")
def by_hand():
    spec = importlib.util.spec_from_file_location(PATH.stem, PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def eq4_and_eq5(log_probs_GTV: torch.Tensor, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token by token in float64, with the ended rows uniform."""
    p_GTV = log_probs_GTV.double().exp()
    for row, length in enumerate(lengths):
        p_GTV[row, length:] = 1 / p_GTV.shape[-1]
    divergence_T = torch.stack(
        [sum((p * (p / p_GTV[:, t].mean(0)).log()).sum() for p in p_GTV[:, t]) for t in range(p_GTV.shape[1])]
    )
    low, high = divergence_T.min(), divergence_T.max()
    return divergence_T, 1 + 0.7 * (divergence_T - low) / (high - low)


def test_divergence_weights_and_loss_are_the_methods(by_hand):
    generator = torch.Generator().manual_seed(0)
    lengths = [7, 3, 5, 1]
    live_GT = torch.arange(T) < torch.tensor(lengths)[:, None]
    log_probs_GTV = (3 * torch.randn(G, T, by_hand.V, generator=generator)).log_softmax(-1)
    divergence_T = by_hand.divergence(log_probs_GTV, live_GT)
    weights_T = by_hand.weights(divergence_T)
    expected_divergence_T, expected_weights_T = eq4_and_eq5(log_probs_GTV, lengths)
    torch.testing.assert_close(divergence_T.double(), expected_divergence_T, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights_T.double(), expected_weights_T, rtol=1e-5, atol=1e-6)

    log_prob_GT, old_log_prob_GT = torch.randn(2, G, T, generator=generator)
    advantages_G = torch.tensor([1.0, -0.5, 0.0, -0.5])
    losses_GT = weighted_clipped_objective(
        log_prob_GT, old_log_prob_GT, advantages_G[:, None].expand(G, T), weights_T.expand(G, T), clip_c=1e9
    ).losses_BT
    loss = by_hand.loss(log_prob_GT, old_log_prob_GT, advantages_G, weights_T, live_GT)
    torch.testing.assert_close(loss, losses_GT[live_GT].mean())


def test_a_group_that_agrees_is_not_weighted(by_hand):
    same_GTV = torch.randn(1, T, by_hand.V).log_softmax(-1).expand(G, T, by_hand.V)
    weights_T = by_hand.weights(by_hand.divergence(same_GTV, torch.ones(G, T, dtype=torch.bool)))
    torch.testing.assert_close(weights_T, torch.ones(T), rtol=0, atol=1e-3)


@pytest.mark.parametrize("words", ["red hits cube", "the red stops", "red blue", "", "red red cube"])
def test_its_reward_is_eq7(by_hand, words):
    named = frozenset(words.split()) & {"red", "blue", "ball", "cube"}
    assert by_hand.reward(words.split()) == soft_reward(named, frozenset({"red", "cube"}))


@pytest.mark.slow
def test_it_prints_the_weighted_words_and_learns(by_hand, capsys):
    means = by_hand.main()
    out = capsys.readouterr().out
    assert out.count("reward 0.0: ") + out.count("reward 0.5: ") == by_hand.G
    assert "(1.00)" in out and "(1.70)" in out
    assert sum(means[:5]) / 5 < 0.4 < 0.9 < sum(means[-5:]) / 5


def test_it_fits_on_a_screen_or_two():
    assert len(PATH.read_text().splitlines()) <= 100
