"""Fused kernels inside the call of the head: tied and untied heads under FSDP2, on one rank and on two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from verl.models.transformers import monkey_patch
from verl.workers.engine.fsdp import FSDPEngineWithLMHead
from verl.workers.utils.padding import response_from_nested

from verl_twgrpo.training.engines.fsdp import TWGRPOEngine
from verl_twgrpo.training.engines.head_pass_mixin import PASS_KEY

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("fused_on_two_ranks.py")
FUSED = {"use_fused_kernels": True, "fused_kernel_options": {"impl_backend": "torch"}}
HEADS = ("untied", "tied", "qwen2_vl", "qwen3_vl", "text")


def infer(engine, batch, head, fused=True, divergence=None):
    settings = {"temperature": 0.7, "calculate_entropy": True, "compute_loss": False, "use_dynamic_bsz": False}
    settings |= {"micro_batch_size_per_gpu": 1, "use_remove_padding": False, "use_fused_kernels": fused}
    if divergence:
        settings[PASS_KEY] = {"divergence": divergence, "rows_per_chunk": 5}
    data = batch.tensordict(head == "text", **settings)
    with engine.eval_mode():
        output = engine.infer_batch(data)["model_output"]
    return {name: response_from_nested(field, data["response_mask"]).unbind() for name, field in output.items()}


@pytest.mark.parametrize("head", HEADS)
def test_verls_fused_log_probs_are_those_of_its_logits(make_engine, ragged_batch, head):
    plain = infer(make_engine(FSDPEngineWithLMHead, head=head), ragged_batch, head, fused=False)
    fused = infer(make_engine(FSDPEngineWithLMHead, head=head, **FUSED), ragged_batch, head)
    for name in ("log_probs", "entropy"):
        for expected, actual in zip(plain[name], fused[name], strict=True):
            torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_the_weights_pass_is_that_without_fused_kernels(make_engine, ragged_batch, head):
    plain = infer(make_engine(TWGRPOEngine, head=head), ragged_batch, head, fused=False, divergence="jsd")
    engine = make_engine(TWGRPOEngine, head=head, **FUSED)
    fused = infer(engine, ragged_batch, head, divergence="jsd")
    assert fused.keys() == plain.keys() and "divergence" in fused
    for name, rows in plain.items():
        for expected, actual in zip(rows, fused[name], strict=True):
            torch.testing.assert_close(actual, expected, atol=0, rtol=0)
    # and behind it the update's own log-probs are fused again
    update = infer(engine, ragged_batch, head)["log_probs"]
    for row, padding in enumerate(ragged_batch.padding):
        if not padding:
            torch.testing.assert_close(update[row], fused["log_probs"][row], atol=2e-5, rtol=1e-5)


def test_an_engine_without_fused_kernels_gives_logits_beside_one_with_them(make_engine, ragged_batch):
    make_engine(FSDPEngineWithLMHead, head="text", **FUSED)
    plain = make_engine(FSDPEngineWithLMHead, head="text")
    assert infer(plain, ragged_batch, "text", fused=False)["log_probs"]


def test_two_ranks_reduce_the_gradient_of_an_untied_head(on_two_ranks, checkpoints):
    for done in on_two_ranks(SCRIPT, *(str(checkpoints[head]) for head in ("untied", "qwen3_vl", "tied"))):
        assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.upstream_bug
def test_verl_reads_the_weight_of_a_head_that_nobody_gathered(make_engine, ragged_batch, monkeypatch):
    stock = monkey_patch.patch_forward_with_backends.__wrapped__
    monkeypatch.setattr(monkey_patch, "patch_forward_with_backends", stock)
    engine = make_engine(FSDPEngineWithLMHead, head="untied", **FUSED)
    with pytest.raises(RuntimeError, match="mixed torch.Tensor and DTensor"):
        infer(engine, ragged_batch, "untied")
