"""Rows without padding through verl's patch of Qwen2.5-VL on a CPU, with a stand-in for flash-attn."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from verl.models.transformers import qwen2_vl
from verl.workers.engine.fsdp import FSDPEngineWithLMHead

from verl_twgrpo.training.engines.fsdp import TWGRPOEngine

from .test_packed_groups import assert_same_update, three_groups
from .test_packed_groups import run as run_packed
from .test_weights_pass import infer

pytestmark = pytest.mark.slow


def attention_by_segments(query, key, value, attention_mask, query_length, position_ids=None, **_):
    """What flash-attn does with [1, S, heads, D]: causal within each row, which begins where the position is 0."""
    starts = (position_ids.flatten() == 0).nonzero().flatten().tolist()
    rows = [
        F.scaled_dot_product_attention(*(x[:, a:b].transpose(1, 2) for x in (query, key, value)), is_causal=True)
        for a, b in zip(starts, [*starts[1:], query.shape[1]], strict=True)
    ]
    return torch.cat([row.transpose(1, 2) for row in rows], dim=1)


@pytest.fixture
def flash_stand_in(monkeypatch):
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLAttention
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLAttention

    for attention in (Qwen2_5_VLAttention, Qwen2VLAttention):
        # verl patches the class when it makes an engine: the next test gets it back as it was
        monkeypatch.setattr(attention, "forward", attention.forward)
    monkeypatch.setattr(qwen2_vl, "_custom_flash_attention_forward", attention_by_segments)
    monkeypatch.setattr(qwen2_vl, "_flash_use_top_left_mask", False, raising=False)


@pytest.mark.parametrize("kind", ["jsd", "released"])
def test_the_weights_pass_is_that_of_padded_rows_and_of_verl(make_engine, ragged_batch, flash_stand_in, kind):
    padded = infer(make_engine(TWGRPOEngine), ragged_batch, 1, kind)
    settings = {"use_remove_padding": True, "use_dynamic_bsz": True, "max_token_len_per_gpu": 64}
    removed = infer(make_engine(TWGRPOEngine, use_remove_padding=True), ragged_batch, 3, kind, **settings)
    for name in ("log_probs", "entropy", "divergence"):
        for one, other in zip(removed[name], padded[name], strict=True):
            torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)
    verls = infer(make_engine(FSDPEngineWithLMHead, use_remove_padding=True), ragged_batch, 3, **settings)
    for row, padding in enumerate(ragged_batch.padding):
        if not padding:
            torch.testing.assert_close(removed["log_probs"][row], verls["log_probs"][row], atol=2e-5, rtol=1e-5)


def test_packed_groups_take_the_place_of_verls_attention(make_engine, flash_stand_in):
    engine, data = make_engine(TWGRPOEngine, use_remove_padding=True), three_groups("untied")
    assert_same_update(engine, data, use_remove_padding=True)
    engine.take_packing_counts()
    run_packed(engine, data, packed=True, forward_only=True, kind="jsd", use_remove_padding=True)
    counts = engine.take_packing_counts()
    assert counts["tokens"] < counts["tokens_unpacked"]
    assert qwen2_vl._custom_flash_attention_forward is attention_by_segments
