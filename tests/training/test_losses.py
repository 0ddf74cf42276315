"""The registered loss and estimator, through verl's own loss path (verl/workers/utils/losses.py: ppo_loss)."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn
from verl.utils import tensordict_utils as tu
from verl.workers.config import PolicyLossConfig
from verl.workers.utils.losses import ppo_loss

from verl_twgrpo.training.losses import WEIGHTS_FIELD, TokenWeightedLoss
from verl_twgrpo.training.settings import TWGRPOConfig

LENGTHS = [5, 3, 7, 4]


def loss_and_gradient(config, advantages, weights=None, shift=0.3, wrap=TokenWeightedLoss):
    """Loss of verl's ppo_loss and its gradient on every log-prob, for ragged rows with prompts of two tokens."""
    generator = torch.Generator().manual_seed(0)

    def jagged(rows):
        return torch.nested.as_nested_tensor(rows, layout=torch.jagged)

    old = [torch.randn(n, generator=generator) - 2 for n in LENGTHS]
    data = tu.get_tensordict(
        {
            "prompts": jagged([torch.zeros(2, dtype=torch.long)] * len(LENGTHS)),
            "responses": jagged([torch.zeros(n, dtype=torch.long) for n in LENGTHS]),
            "response_mask": jagged([torch.ones(n, dtype=torch.long) for n in LENGTHS]),
            "old_log_probs": jagged(old),
            "advantages": jagged(advantages),
        }
    )
    if weights is not None:
        data[WEIGHTS_FIELD] = jagged(weights)
    tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=sum(LENGTHS), global_batch_size=len(LENGTHS))
    # model output is by token of prompt and response, one place to the left of the token it is about
    flat = torch.cat(
        [torch.cat([torch.zeros(1), o + shift * torch.randn(len(o), generator=generator), torch.zeros(1)]) for o in old]
    ).requires_grad_()
    offsets = torch.tensor([0] + [n + 2 for n in LENGTHS]).cumsum(0)
    output = {"log_probs": torch.nested.nested_tensor_from_jagged(flat, offsets)}
    loss, metrics = wrap(partial(ppo_loss, config=config))(model_output=output, data=data)
    loss.backward()
    return loss.detach(), flat.grad, metrics


@pytest.fixture
def advantages():
    return [torch.full((n,), value) for n, value in zip(LENGTHS, [1.2, -0.7, 0.4, -0.9], strict=True)]


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(2)
    return [1 + 0.7 * torch.rand(n, generator=generator) for n in LENGTHS]


@pytest.mark.parametrize("placement", ["outside", "eq6"])
def test_alpha_zero_is_token_level_grpo_to_the_bit(advantages, placement, make_actor_config):
    ours = loss_and_gradient(make_actor_config(alpha=0.0, placement=placement), advantages)
    grpo = loss_and_gradient(make_actor_config(loss_mode="vanilla"), advantages)
    assert torch.equal(ours[0], grpo[0])
    assert torch.equal(ours[1], grpo[1])


def test_weights_of_one_are_token_level_grpo_to_the_bit_in_eq6_too(advantages, make_actor_config):
    ones = [torch.ones(n) for n in LENGTHS]
    ours = loss_and_gradient(make_actor_config(placement="eq6"), advantages, ones)
    grpo = loss_and_gradient(make_actor_config(loss_mode="vanilla"), advantages)
    assert torch.equal(ours[0], grpo[0])
    assert torch.equal(ours[1], grpo[1])


def test_outside_is_any_loss_of_weighted_advantages(advantages, weights, make_actor_config):
    weighted = [a * w for a, w in zip(advantages, weights, strict=True)]
    # the weights in the batch must not count twice
    ours = loss_and_gradient(make_actor_config(), weighted, weights)
    vanilla = loss_and_gradient(make_actor_config(loss_mode="vanilla"), weighted)
    assert torch.equal(ours[0], vanilla[0])
    assert torch.equal(ours[1], vanilla[1])
    assert not torch.equal(ours[0], loss_and_gradient(make_actor_config(), advantages)[0])


def test_eq6_takes_the_weights_from_the_batch(advantages, weights, make_actor_config):
    config = make_actor_config(placement="eq6")
    _, gradient, _ = loss_and_gradient(config, advantages, weights, shift=0.0)
    # at r = 1: A min(w, 1) for A > 0, A max(w, 1) for A < 0 (weights of this batch are all above one)
    expected = [
        torch.cat([torch.zeros(1), -a * (1.0 if a[0] > 0 else w) / sum(LENGTHS), torch.zeros(1)])
        for a, w in zip(advantages, weights, strict=True)
    ]
    torch.testing.assert_close(gradient, torch.cat(expected), atol=1e-7, rtol=1e-5)


def test_eq6_without_weights_in_the_batch_is_an_error(advantages, make_actor_config):
    with pytest.raises(ValueError, match="placement=eq6: the batch has no token weights"):
        loss_and_gradient(make_actor_config(placement="eq6"), advantages)


@pytest.mark.parametrize("placement", ["outside", "eq6"])
def test_another_trainers_worker_never_trains_without_weights(advantages, placement, make_actor_config):
    with pytest.raises(ValueError, match="this trainer computes no token weights"):
        loss_and_gradient(make_actor_config(placement=placement), advantages, wrap=lambda loss: loss)
    plain = loss_and_gradient(make_actor_config(alpha=0.0, placement=placement), advantages, wrap=lambda loss: loss)
    assert torch.equal(plain[0], loss_and_gradient(make_actor_config(loss_mode="vanilla"), advantages)[0])


def test_the_loss_without_the_algorithm_is_an_error_and_not_silently_grpo(advantages, make_actor_config):
    config = make_actor_config()
    object.__setattr__(config, "policy_loss", PolicyLossConfig(loss_mode="tw_grpo"))
    with pytest.raises(ValueError, match="loss_mode=tw_grpo has no settings: select algorithm=tw_grpo"):
        loss_and_gradient(config, advantages)


def test_clip_fractions_reach_verls_metrics(advantages, make_actor_config):
    _, _, metrics = loss_and_gradient(make_actor_config(), advantages, shift=1.0)
    assert metrics["actor/pg_clipfrac"].aggregate() > 0
    assert {"actor/ppo_kl", "actor/pg_clipfrac_lower", "actor/pg_loss"} <= metrics.keys()


def test_the_estimator_normalises_by_group_and_reads_its_eps():
    rewards_BT = torch.tensor([[0.0, 1.0], [0.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    mask_BT = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1]])
    index = np.array(["a", "a", "b", "b"], dtype=object)
    estimate = get_adv_estimator_fn("tw_grpo")
    advantages, returns = estimate(token_level_rewards=rewards_BT, response_mask=mask_BT, index=index, config=None)
    half = 0.5 / torch.tensor([1.0, 0.0]).std()
    torch.testing.assert_close(advantages, torch.tensor([[half, half], [-half, 0.0], [0.0, 0.0], [0.0, 0.0]]))
    assert torch.equal(advantages, returns)
    config = OmegaConf.create({"tw_grpo": {"std_eps": 0.5}})
    smaller, _ = estimate(token_level_rewards=rewards_BT, response_mask=mask_BT, index=index, config=config)
    torch.testing.assert_close(smaller[0, 0], 0.5 / (torch.tensor([1.0, 0.0]).std() + 0.5))


@pytest.mark.parametrize("setting", [{"anchors": {}}, {"std": "task"}])
def test_an_estimator_that_is_told_nothing_of_the_scores_says_so(setting):
    config = OmegaConf.create({"tw_grpo": setting})
    with pytest.raises(ValueError, match=r"anchors and std=task need .*trainer_mode=tw_grpo"):
        get_adv_estimator_fn("tw_grpo")(torch.ones(1, 1), torch.ones(1, 1), np.array(["a"], dtype=object), config)


def test_both_are_registered_by_name():
    assert get_policy_loss_fn("tw_grpo").__module__ == "verl_twgrpo.training.losses"
    assert get_adv_estimator_fn("tw_grpo").__module__ == "verl_twgrpo.training.losses"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"alpha": -0.1}, r"alpha=-0.1: need a number of 0 or more"),
        ({"alpha": "much"}, r"alpha='much'"),
        ({"alpha": float("nan")}, r"alpha=nan"),
        ({"divergence": "kl"}, r"divergence='kl': .*choose one of jsd, released, live"),
        ({"weight": "eq6"}, r"weight='eq6'"),
        ({"placement": "inside"}, r"placement='inside'"),
        ({"scope": "tail"}, r"scope='tail'"),
        ({"std_eps": None}, r"std_eps=None"),
        ({"tokens_per_chunk": 0}, r"tokens_per_chunk=0"),
        ({"rows_per_chunk": 0}, r"rows_per_chunk=0"),
        ({"rows_per_chunk": 8, "tokens_per_chunk": 9}, r"rows_per_chunk=8: the former name of tokens_per_chunk"),
        ({"weighting": "best"}, r"weighting: weighting 'best' is unknown, choose one of .*group_divergence"),
        ({"settings": {"q": 0.2}}, r"settings\.q: .* has its settings in algorithm\.tw_grpo itself: divergence"),
        ({"normalise": "all"}, r"normalise='all': choose one of none, response, batch"),
        ({"control": "all"}, r"control='all': choose one of none, shuffled, random"),
        ({"seed": 0.5}, r"seed=0.5: need a whole number"),
        ({"std": "batch"}, r"std='batch': choose one of group, task"),
        ({"std_decay": 1.5}, r"std_decay=1.5: need a number from 0 to 1"),
        ({"anchors": 2}, r"anchors=2: need null or settings: right, wrong"),
        ({"anchors": {"lef": 2}}, r"anchors\.lef: no such setting; choose from right, wrong"),
        ({"anchors": {"right": -1}}, r"anchors\.right=-1: need a number of 0 or more"),
        ({"detach": False}, r"detach=False: training takes the weights from the old policy"),
    ],
)
def test_a_bad_setting_is_named(setting, message):
    with pytest.raises(ValueError, match=r"algorithm\.tw_grpo\." + message):
        TWGRPOConfig(**setting)


def test_former_settings_are_still_taken():
    assert TWGRPOConfig(rows_per_chunk=7).tokens_per_chunk == 7
    assert TWGRPOConfig(detach=True) is not None
