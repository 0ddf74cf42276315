"""Every policy loss that verl has under token weights: what docs/weightings.md says of it is what it does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, get_policy_loss_fn

from verl_twgrpo.algorithm.weightings import WEIGHTINGS, Group, make_weighting, weigh_groups
from verl_twgrpo.training.checks.loss import LOSSES, NOTED, REFUSED, WORKS, check_loss_takes_weights

DOCS = Path(__file__).resolve().parents[2] / "docs" / "weightings.md"
LENGTHS = [5, 3, 7, 4]
WORKING = [mode for mode, (verdict, _) in LOSSES.items() if verdict == WORKS and mode != "tw_grpo"]


def test_the_table_has_every_loss_of_verl_and_docs_have_the_table():
    ours = {"tw_grpo"}
    assert set(LOSSES) == {name for name in POLICY_LOSS_REGISTRY if not name.startswith("toy")} | ours
    for mode, (verdict, reason) in LOSSES.items():
        assert f"| `{mode}` | {verdict} | {reason} |\n" in DOCS.read_text(encoding="utf-8")


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(len(LENGTHS), max(LENGTHS))
    for row, length in enumerate(LENGTHS):
        mask[row, :length] = 1
    old = torch.randn(mask.shape, generator=generator) - 2
    new = (old + 0.4 * torch.randn(mask.shape, generator=generator)).clamp(max=-0.01)
    advantages = torch.tensor([1.2, -0.7, 0.4, -0.9])[:, None] * mask
    return SimpleNamespace(mask=mask, old=old, new=new, advantages=advantages)


def gradient(make_actor_config, mode, batch, advantages):
    """Of the loss on every log-prob, [B, T]."""
    config = make_actor_config(mode)
    object.__setattr__(config.policy_loss, "dro_beta", 0.1)  # which dro has no default for
    object.__setattr__(config.policy_loss, "clip_cov_ratio", 1.0)  # all that clip_cov may choose: no draw
    object.__setattr__(config.policy_loss, "clip_cov_lb", 0.3)
    config.global_batch_info.update(dp_size=1, batch_num_tokens=int(batch.mask.sum()), global_batch_size=len(LENGTHS))
    log_prob = batch.new.clone().requires_grad_()
    loss, _ = get_policy_loss_fn(mode)(batch.old, log_prob, advantages, batch.mask, "token-mean", config, None)
    loss.backward()
    return log_prob.grad


@pytest.mark.parametrize("weighting", WEIGHTINGS.names())
@pytest.mark.parametrize("mode", WORKING)
def test_a_tokens_gradient_is_its_weight_times_what_it_is_without(make_actor_config, batch, mode, weighting):
    weights = weights_of(weighting, batch)
    plain = gradient(make_actor_config, mode, batch, batch.advantages)
    penalty = gradient(make_actor_config, mode, batch, torch.zeros_like(batch.advantages))
    assert (penalty.abs().max() > 0) == (mode == "dro")
    weighted = gradient(make_actor_config, mode, batch, batch.advantages * weights)
    torch.testing.assert_close(weighted, penalty + weights * (plain - penalty), rtol=1e-5, atol=1e-7)
    assert not torch.allclose(weighted, plain)


def weights_of(name, batch):
    """One group's weights from columns drawn at random, [B, T]; 1 beyond the responses."""
    weighting = make_weighting(name, {"keep": 0.5} if name == "top_entropy" else {})
    generator = torch.Generator().manual_seed(1)
    by_position = torch.rand(max(LENGTHS), generator=generator)
    masks = [torch.ones(length, dtype=torch.bool) for length in LENGTHS]
    columns = {}
    for column in weighting.read_columns():
        if column == "divergence":
            columns[column] = [by_position[:length] for length in LENGTHS]
        elif column == "advantages":
            columns[column] = [batch.advantages[row, :length] for row, length in enumerate(LENGTHS)]
        else:
            columns[column] = [torch.rand(length, generator=generator) for length in LENGTHS]
        if column == "decisive":
            columns[column] = [(values > 0.5).float() for values in columns[column]]
    group = Group("a", list(range(len(LENGTHS))), masks, columns, vocabulary_size=97)
    weigh_groups(weighting, [group])
    weights = torch.ones_like(batch.mask)
    for row, weights_L in enumerate(group.weights):
        weights[row, : len(weights_L)] = weights_L
    return weights


@pytest.mark.parametrize("mode", WORKING)
def test_a_token_that_is_filtered_out_has_no_gradient_of_its_own(make_actor_config, batch, mode):
    """But in dro, whose penalty is not the advantage's; in gspo it still moves the response's importance ratio."""
    kept = weights_of("top_entropy", batch) > 0
    assert kept.any() and not kept[batch.mask.bool()].all()
    found = gradient(make_actor_config, mode, batch, batch.advantages * kept)
    penalty = gradient(make_actor_config, mode, batch, torch.zeros_like(batch.advantages))
    assert torch.equal(found[~kept], penalty[~kept])
    moved = batch.new.clone()
    batch.new = torch.where(kept, moved, moved - 0.1)
    again = gradient(make_actor_config, mode, batch, batch.advantages * kept)
    assert torch.allclose(again[kept], found[kept]) == (mode != "gspo")


def run_with(mode, placement="outside"):
    return OmegaConf.create(
        {
            "algorithm": {"tw_grpo": {"placement": placement}},
            "actor_rollout_ref": {"actor": {"policy_loss": {"loss_mode": mode}}},
        }
    )


@pytest.mark.parametrize("mode", LOSSES)
def test_eq_6_is_refused_for_every_loss_but_ours(mode):
    if mode == "tw_grpo":
        assert check_loss_takes_weights(run_with(mode, "eq6")) == []
    else:
        with pytest.raises(ValueError, match=f"loss_mode={mode}: placement eq6 is a property of the loss tw_grpo"):
            check_loss_takes_weights(run_with(mode, "eq6"))


@pytest.mark.parametrize(("mode", "verdict"), [(mode, verdict) for mode, (verdict, _) in LOSSES.items()])
def test_what_is_noted_is_noted_and_what_is_refused_is_refused(mode, verdict):
    if verdict == REFUSED:
        with pytest.raises(ValueError, match=f"loss_mode={mode}: "):
            check_loss_takes_weights(run_with(mode))
    else:
        assert len(check_loss_takes_weights(run_with(mode))) == (verdict == NOTED)


@pytest.mark.parametrize("mode", [mode for mode, (verdict, _) in LOSSES.items() if verdict == NOTED])
def test_a_loss_that_chooses_by_advantage_is_no_product(make_actor_config, batch, mode):
    weights = weights_of("group_divergence", batch)
    plain = gradient(make_actor_config, mode, batch, batch.advantages)
    weighted = gradient(make_actor_config, mode, batch, batch.advantages * weights)
    assert weighted.isfinite().all()
    assert not torch.allclose(weighted, weights * plain, rtol=1e-5, atol=1e-7)


def test_the_mean_of_geo_mean_loses_the_tokens(make_actor_config, batch):
    """Why it is refused: two ways to weigh a response with the same mean are one."""
    one, other = torch.ones_like(batch.mask), torch.ones_like(batch.mask)
    one[0, 0], other[0, 1] = 2.0, 2.0
    torch.testing.assert_close(
        gradient(make_actor_config, "geo_mean", batch, batch.advantages * one),
        gradient(make_actor_config, "geo_mean", batch, batch.advantages * other),
    )
