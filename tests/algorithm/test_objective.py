"""Objectives: Eq. 11, the released placement and Eq. 6, and their gradients."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_twgrpo.algorithm import (
    group_divergence,
    token_weights,
    tw_grpo_policy_loss,
    weighted_clipped_objective,
)

LOW, HIGH, C = 0.2, 0.28, 3.0
PLACEMENTS = ("outside", "eq6")
CONFIG = SimpleNamespace(clip_ratio=0.2, clip_ratio_low=LOW, clip_ratio_high=HIGH, clip_ratio_c=C)
few = settings(max_examples=50)


def make_batch(seed: int, spread: float = 0.5, B: int = 6, T: int = 9):
    """old_log_prob, log_prob, advantages, mask (ragged), weights; the ratio is far outside the clip now and then."""
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(B, T, generator=generator) * 5
    log_prob = old + torch.randn(B, T, generator=generator) * spread
    advantages = torch.randn(B, 1, generator=generator).expand(B, T).contiguous()
    lengths = torch.randint(1, T + 1, (B, 1), generator=generator)
    mask = (torch.arange(T) < lengths).float()
    weights = 1.7 * torch.rand(T, generator=generator).expand(B, T).contiguous()
    return old, log_prob, advantages, mask, weights


def loss_and_gradient(loss_fn, old, log_prob, advantages, mask, **kwargs):
    log_prob = log_prob.clone().requires_grad_()
    loss, metrics = loss_fn(old, log_prob, advantages, mask, **kwargs)
    loss.backward()
    return loss.detach(), log_prob.grad, metrics


# ---- against the equations


@few
@given(
    st.integers(0, 2**16),
    st.sampled_from(
        [(placement, loss) for placement, loss in zip(PLACEMENTS, ("outside_loss", "eq6_loss"), strict=True)]
    ),
)
def test_a_group_has_the_loss_of_the_equation(seed, placement_and_loss):
    """Without the dual clip, which the paper does not have."""
    placement, name = placement_and_loss
    old, log_prob, advantages, mask, weights = make_batch(seed)
    config = SimpleNamespace(clip_ratio=0.2, clip_ratio_low=LOW, clip_ratio_high=HIGH, clip_ratio_c=1e9)
    loss, _ = tw_grpo_policy_loss(old, log_prob, advantages, mask, config=config, weights=weights, placement=placement)
    ratios = [
        [math.exp(new - before) for new, before, live in zip(*row, strict=True) if live]
        for row in zip(log_prob.tolist(), old.tolist(), mask.tolist(), strict=True)
    ]
    expected = getattr(reference, name)(ratios, advantages[:, 0].tolist(), weights[0].tolist(), LOW, HIGH)
    assert loss.item() == pytest.approx(expected, rel=2e-5, abs=1e-6)


@few
@given(st.integers(0, 2**16), st.sampled_from(PLACEMENTS), st.sampled_from([0.05, 0.5, 3.0]))
def test_weights_of_1_are_eq_11_to_the_bit(seed, placement, spread):
    old, log_prob, advantages, mask, weights = make_batch(seed, spread)
    plain = loss_and_gradient(tw_grpo_policy_loss, old, log_prob, advantages, mask, config=CONFIG)
    ones = loss_and_gradient(
        tw_grpo_policy_loss,
        old,
        log_prob,
        advantages,
        mask,
        config=CONFIG,
        weights=torch.ones_like(weights),
        placement=placement,
    )
    assert torch.equal(plain[0], ones[0]) and torch.equal(plain[1], ones[1]) and plain[2] == ones[2]


@few
@given(
    st.integers(0, 2**16),
    st.sampled_from([0.0, 0.05, 0.5, 3.0]),
    st.booleans(),
    st.sampled_from(["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"]),
)
def test_without_weights_loss_and_gradient_are_verls_vanilla_to_the_bit(seed, spread, with_is_weights, mode):
    """Spread 0 is the first, on-policy step, where both sides of every min are equal."""
    core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    from verl.workers.config import ActorConfig

    config = ActorConfig(
        strategy="fsdp", rollout_n=1, use_dynamic_bsz=True, clip_ratio_low=LOW, clip_ratio_high=HIGH, clip_ratio_c=C
    )
    old, log_prob, advantages, mask, weights = make_batch(seed, spread)
    kwargs = {"config": config, "loss_agg_mode": mode, "rollout_is_weights": weights if with_is_weights else None}
    theirs = loss_and_gradient(core_algos.compute_policy_loss_vanilla, old, log_prob, advantages, mask, **kwargs)

    def verls(losses, mask, loss_agg_mode):
        return core_algos.agg_loss(losses, mask, loss_agg_mode, **config.global_batch_info)

    aggregates = [{"aggregate": verls}, {}] if mode == "token-mean" else [{"aggregate": verls}]
    for aggregate in aggregates:
        for ours_kwargs in ({}, {"weights": torch.ones_like(weights)}):
            ours = loss_and_gradient(
                tw_grpo_policy_loss, old, log_prob, advantages, mask, **kwargs, **aggregate, **ours_kwargs
            )
            assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
            assert ours[2] == pytest.approx(theirs[2], rel=1e-6)


@few
@given(st.integers(0, 2**16), st.sampled_from([0.05, 0.5, 3.0]))
def test_outside_is_per_token_advantage_scaling_dual_clip_included(seed, spread):
    old, log_prob, advantages, mask, weights = make_batch(seed, spread)
    outside = loss_and_gradient(
        tw_grpo_policy_loss, old, log_prob, advantages, mask, config=CONFIG, weights=weights, placement="outside"
    )
    scaled = loss_and_gradient(tw_grpo_policy_loss, old, log_prob, advantages * weights, mask, config=CONFIG)
    assert torch.equal(outside[0], scaled[0]) and torch.equal(outside[1], scaled[1])
    # and it is the released order of operations: w * min(...) with the plain advantage
    plain = weighted_clipped_objective(log_prob, old, advantages, None, LOW, HIGH, C)
    weighted = weighted_clipped_objective(log_prob, old, advantages, weights, LOW, HIGH, C)
    torch.testing.assert_close(weighted.losses_BT, weights * plain.losses_BT, rtol=1e-5, atol=1e-6)


# ---- gradients by sign, weight and side of the clip


def gradient_of_objective(ratio: float, A: float, w: float, placement: str) -> float:
    """d(objective) / d(ratio) of one token."""
    log_prob = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    advantages, weights = torch.tensor([[A]], dtype=torch.float64), torch.tensor([[w]], dtype=torch.float64)
    losses = weighted_clipped_objective(
        log_prob, torch.zeros(1, 1, dtype=torch.float64), advantages, weights, LOW, HIGH, C, placement
    ).losses_BT
    losses.sum().backward()
    return -log_prob.grad.item() / ratio


@pytest.mark.parametrize("w", [0.0, 0.4, 1.0, 1.7, 4.0])
@pytest.mark.parametrize("A", [0.6, -0.6])
def test_eq6_on_policy_has_the_gradient_that_the_design_states(A, w):
    """At r = 1: A min(w, 1) for A > 0, A max(w, 1) for A < 0; also where w is beyond the dual clip's bound."""
    expected = A * min(w, 1) if A > 0 else A * max(w, 1)
    assert gradient_of_objective(1.0, A, w, "eq6") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ratio", "A", "w", "eq6", "outside"),
    [
        # A > 0: min(w r, clip(r)); clip(r) ends at 1.28, and w r passes it at r = 1.28 / w
        (1.5, 1.0, 1.0, 0.0, 0.0),
        (1.5, 1.0, 0.5, 0.5, 0.0),
        (3.0, 1.0, 0.5, 0.0, 0.0),
        (1.1, 1.0, 1.7, 1.0, 1.7),
        (0.5, 1.0, 1.0, 1.0, 1.0),
        (0.5, 1.0, 1.7, 0.0, 1.7),
        (0.3, 1.0, 1.7, 1.7, 1.7),
        # A < 0: max(w r, clip(r)); clip(r) ends at 0.8 below
        (0.5, -1.0, 1.0, 0.0, 0.0),
        (0.5, -1.0, 1.7, -1.7, 0.0),
        (1.5, -1.0, 1.7, -1.7, -1.7),
        (1.5, -1.0, 0.5, 0.0, -0.5),
        (2.9, -1.0, 0.5, -0.5, -0.5),
        (1.1, -1.0, 0.5, -1.0, -0.5),
        # dual clip: a ratio above 3 moves nothing
        (3.1, -1.0, 1.0, 0.0, 0.0),
        (3.1, -1.0, 1.7, 0.0, 0.0),
        (2.9, -1.0, 1.7, -1.7, -1.7),
        (6.5, -1.0, 0.5, 0.0, 0.0),
    ],
)
def test_gradient_on_each_side_of_the_clip(ratio, A, w, eq6, outside):
    assert gradient_of_objective(ratio, A, w, "eq6") == pytest.approx(eq6)
    assert gradient_of_objective(ratio, A, w, "outside") == pytest.approx(outside)


def test_clip_low_and_clip_high_are_taken_from_the_config_and_fall_back_to_clip_ratio():
    old, advantages = torch.zeros(1, 2), torch.ones(1, 2)
    log_prob = torch.tensor([[math.log(1.5), math.log(1.05)]])
    for low, high, expected in [(0.1, 0.4, 1.4), (None, None, 1.2)]:
        config = SimpleNamespace(clip_ratio=0.2, clip_ratio_low=low, clip_ratio_high=high, clip_ratio_c=C)
        loss, metrics = tw_grpo_policy_loss(old, log_prob, advantages, torch.ones(1, 2), config=config)
        assert loss.item() == pytest.approx(-(expected + 1.05) / 2)
        assert metrics["actor/pg_clipfrac"] == pytest.approx(0.5)
    config = SimpleNamespace(clip_ratio=0.2, clip_ratio_low=0.1, clip_ratio_high=0.4, clip_ratio_c=C)
    loss, _ = tw_grpo_policy_loss(old, -log_prob, -advantages, torch.ones(1, 2), config=config)
    assert loss.item() == pytest.approx((0.9 + 1 / 1.05) / 2)


def test_dual_clip_counts_and_bounds():
    old, advantages = torch.zeros(1, 2), torch.tensor([[-1.0, 1.0]])
    log_prob = torch.tensor([[math.log(10.0), math.log(10.0)]])
    loss, metrics = tw_grpo_policy_loss(old, log_prob, advantages, torch.ones(1, 2), config=CONFIG)
    assert loss.item() == pytest.approx((C - 1.28) / 2)
    assert metrics["actor/pg_clipfrac_lower"] == pytest.approx(0.5)
    assert metrics["actor/ppo_kl"] == pytest.approx(-math.log(10.0))


def test_tokens_out_of_the_mask_do_not_count_whatever_they_hold():
    old, log_prob, advantages, mask, weights = make_batch(0)
    loss, metrics = tw_grpo_policy_loss(old, log_prob, advantages, mask, config=CONFIG, weights=weights)
    log_prob = torch.where(mask.bool(), log_prob, math.nan)
    spoiled, spoiled_metrics = tw_grpo_policy_loss(old, log_prob, advantages, mask, config=CONFIG, weights=weights)
    assert torch.equal(loss, spoiled) and metrics == spoiled_metrics


# ---- gradient through the weights


def policy(seed: int, G: int = 4, T: int = 6, V: int = 11):
    """Logits of a group on policy, sampled tokens, advantages that sum to 0."""
    generator = torch.Generator().manual_seed(seed)
    logits_GTV = torch.randn(G, T, V, generator=generator, dtype=torch.float64) * 2
    tokens_GT = torch.randint(V, (G, T), generator=generator)
    advantages_G = torch.randn(G, generator=generator, dtype=torch.float64)
    return logits_GTV, tokens_GT, (advantages_G - advantages_G.mean())[:, None].expand(G, T)


def gradient(logits_GTV, tokens_GT, advantages_GT, lengths, detach: bool) -> torch.Tensor:
    logits_GTV = logits_GTV.clone().requires_grad_()
    log_probs_GTV = torch.log_softmax(logits_GTV, -1)
    T = tokens_GT.shape[1]
    mask_GT = (torch.arange(T) < torch.tensor(lengths)[:, None]).double()
    weights_T = token_weights(group_divergence(log_probs_GTV, lengths), lengths)
    log_prob_GT = log_probs_GTV.gather(-1, tokens_GT[..., None])[..., 0]
    weights_GT = weights_T.expand_as(log_prob_GT)
    if detach:
        loss, _ = tw_grpo_policy_loss(
            log_prob_GT.detach(), log_prob_GT, advantages_GT, mask_GT, config=CONFIG, weights=weights_GT
        )
    else:  # the same on policy, where nothing is clipped, as the released code has it
        ratio_GT = (log_prob_GT - log_prob_GT.detach()).exp()
        loss = -(weights_GT * ratio_GT * advantages_GT * mask_GT).sum() / mask_GT.sum()
    loss.backward()
    return logits_GTV.grad


@few
@given(st.integers(0, 2**16))
def test_gradient_through_the_weights_cancels_where_all_rows_are_live(seed):
    """On policy the weight of a position meets sum_i A_i = 0; weights are float32, which leaves 1e-8 or so."""
    case = policy(seed)
    lengths = [6, 6, 6, 6]
    torch.testing.assert_close(
        gradient(*case, lengths, detach=False), gradient(*case, lengths, detach=True), rtol=1e-6, atol=1e-6
    )


@few
@given(st.integers(0, 2**16))
def test_gradient_through_the_weights_leaks_in_the_ragged_tail(seed):
    case = policy(seed)
    lengths = [6, 4, 3, 6]
    detached, through = (gradient(*case, lengths, detach=detach) for detach in (True, False))
    assert (through - detached).norm() > 1e-4 * detached.norm()


def test_no_gradient_flows_through_the_weights():
    weights = torch.full((1, 2), 1.5, requires_grad=True)
    log_prob = torch.zeros(1, 2, requires_grad=True)
    for placement in PLACEMENTS:
        loss, _ = tw_grpo_policy_loss(
            torch.zeros(1, 2), log_prob, torch.ones(1, 2), torch.ones(1, 2), config=CONFIG, weights=weights,
            placement=placement,
        )  # fmt: skip
        loss.backward()
        assert weights.grad is None and log_prob.grad is not None


# ---- errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": None}, "needs a config that has clip_ratio"),
        ({"placement": "inside"}, "placement 'inside' is unknown, choose one of outside, eq6"),
        ({"loss_agg_mode": "seq-mean-token-sum"}, "'seq-mean-token-sum' needs an aggregate function"),
        ({"config": SimpleNamespace(**{**vars(CONFIG), "clip_ratio_c": 1.0})}, "clip_c is 1.0"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    old, log_prob, advantages, mask, _ = make_batch(0)
    with pytest.raises(ValueError, match=message):
        tw_grpo_policy_loss(old, log_prob, advantages, mask, **{"config": CONFIG, **changes})
