"""Packed groups through verl's loop over epochs and mini-batches, with its own loss: the same parameters come out."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from verl.utils import tensordict_utils as tu
from verl.workers.utils.losses import ppo_loss

from verl_twgrpo.training.engines.fsdp import TWGRPOEngine
from verl_twgrpo.training.engines.packed_groups_mixin import PACKED_KEY
from verl_twgrpo.training.losses import TokenWeightedLoss

from .test_packed_groups import make_batch, make_prompt

pytestmark = pytest.mark.slow


def actor_loss():
    """verl's ppo_loss with its own defaults, an entropy bonus, and Eq. 11's normalisation, as our worker wraps it."""
    from verl.workers.config import FSDPActorConfig

    config = FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=3,
        ppo_mini_batch_size=4,
        ppo_micro_batch_size_per_gpu=1,
        entropy_coeff=0.1,
        loss_agg_mode="token-mean",
    )
    return TokenWeightedLoss(partial(ppo_loss, config=config))


def batch_of_two_mini_batches(model):
    """Four groups of 3, 3, 2 and 3 rows and a padding row, with old log-probs and advantages."""
    sizes = {"a": [4, 1, 7], "b": [2, 9, 3], "c": [5, 6], "d": [1, 8, 2]}
    media = {"a": "video", "b": "video", "c": "", "d": "two videos"}
    rows = [
        (uid, prompt, length, False)
        for number, (uid, lengths) in enumerate(sizes.items())
        for prompt in [make_prompt(model, media[uid], 6 + number, number)]
        for length in lengths
    ]
    rows.append(("pad", make_prompt(model, "", 2, 9), 1, True))
    data = make_batch(rows)
    generator = torch.Generator().manual_seed(3)
    offsets = data["responses"].offsets()
    for name, scale in (("old_log_probs", 0.3), ("advantages", 1.0)):
        values = torch.randn(int(offsets[-1]), generator=generator) * scale
        data[name] = torch.nested.nested_tensor_from_jagged(values, offsets)
    return data


def train(engine, data, packed, mini_batch_rows, epochs):
    """Parameters and losses after verl's loop over epochs and mini-batches (engine_workers.py: train_mini_batch)."""
    data = data.copy()
    tu.assign_non_tensor(
        data,
        temperature=0.7,
        calculate_entropy=True,
        use_dynamic_bsz=False,
        micro_batch_size_per_gpu=3,
        use_remove_padding=False,
        global_batch_size=mini_batch_rows,
        **({PACKED_KEY: "true"} if packed else {}),
    )
    losses = []
    with engine.train_mode():
        for mini_batch in tu.make_iterator(data, mini_batch_size=mini_batch_rows, epochs=epochs, seed=1):
            losses.append(sum(engine.train_batch(mini_batch, actor_loss())["loss"]))
    return losses, {name: p.full_tensor().detach().clone() for name, p in engine.module.named_parameters()}


def test_epochs_and_mini_batches_that_cut_groups_end_at_the_same_parameters(make_engine):
    data = batch_of_two_mini_batches("untied")
    # mini-batches of 6 rows: the second holds half of a group, a whole one and padding
    engines = [make_engine(TWGRPOEngine) for _ in range(2)]
    losses, parameters = train(engines[0], data, packed=False, mini_batch_rows=6, epochs=2)
    packed_losses, packed_parameters = train(engines[1], data, packed=True, mini_batch_rows=6, epochs=2)
    assert len(losses) == 4
    assert packed_losses == pytest.approx(losses, rel=1e-4, abs=1e-5)
    counts = engines[1].take_packing_counts()
    assert counts["tokens"] < 0.7 * counts["tokens_unpacked"]
    for name, expected in parameters.items():
        # Adam's first steps are of the learning rate, 1e-3, whatever the gradient's size: where that is rounding alone,
        # as at the bias of the keys, so is its sign
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(packed_parameters[name], expected, atol=1e-4, rtol=1e-4, msg=name)
