"""A reference policy under FSDP2 on the CPU: verl pins its memory, which fails there."""

from __future__ import annotations

import pytest
import torch
from torch.distributed.fsdp import CPUOffloadPolicy
from verl.workers.engine.fsdp import transformer_impl
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead


def log_probs(engine, batch):
    settings = {"use_remove_padding": False, "use_dynamic_bsz": False, "micro_batch_size_per_gpu": 1}
    settings |= {"use_fused_kernels": False, "temperature": 1.0, "calculate_entropy": False}
    with engine.eval_mode():
        return engine.infer_batch(batch.tensordict(**settings))["model_output"]["log_probs"]


@pytest.mark.slow
def test_a_reference_policy_gives_the_actors_log_probs(make_engine, ragged_batch):
    reference = make_engine(FSDPEngineWithLMHead, forward_only=True)
    assert reference.optimizer is None
    actor = make_engine(FSDPEngineWithLMHead)
    torch.testing.assert_close(log_probs(reference, ragged_batch).values(), log_probs(actor, ragged_batch).values())


@pytest.mark.upstream_bug
@pytest.mark.slow
def test_without_the_mend_it_cannot_be_made(make_engine, monkeypatch):
    monkeypatch.setattr(transformer_impl, "CPUOffloadPolicy", CPUOffloadPolicy)
    with pytest.raises(RuntimeError, match="accelerator device"):
        make_engine(FSDPEngineWithLMHead, forward_only=True)
