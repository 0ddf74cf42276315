"""The packed attention against one dense mask, and its kernel for unequal lengths against a stand-in."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_twgrpo.training.engines import packed_attention as packed
from verl_twgrpo.training.engines.packed_attention import layout_of, packed_attention, set_layout
from verl_twgrpo.training.engines.packing import Lengths, pack

pytestmark = pytest.mark.slow

LAYOUTS = st.lists(
    st.tuples(st.integers(1, 7), st.lists(st.integers(1, 6), min_size=1, max_size=12)), min_size=1, max_size=4
)


class Module(torch.nn.Module):
    num_key_value_groups = 2


def dense(groups, query, key, value):
    """Attention allows (i, j) if j <= i and j lies in i's prompt or in i's response."""
    group, part = [], []
    for g, (prompt, responses) in enumerate(groups):
        for k, length in enumerate([prompt, *responses]):
            group += [g] * length
            part += [k] * length
    group, part = torch.tensor(group), torch.tensor(part)
    order = torch.arange(len(group))
    allowed = (
        (order[None] <= order[:, None])
        & (group[None] == group[:, None])
        & ((part[None] == 0) | (part[None] == part[:, None]))
    )
    key, value = (x.repeat_interleave(2, dim=1) for x in (key, value))
    scores = (query @ key.transpose(2, 3) * 0.3).masked_fill(~allowed, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


def states(tokens):
    generator = torch.Generator().manual_seed(tokens)
    return [
        torch.randn(1, heads, tokens, 8, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads in (4, 2, 2)
    ]


@pytest.fixture(autouse=True)
def no_layout_is_left():
    yield
    set_layout(None)


@settings(max_examples=50)
@given(LAYOUTS)
def test_values_and_gradients_equal_those_of_a_dense_mask(groups):
    layout = layout_of(groups, "cpu")
    inputs = states(layout.tokens)
    expected = dense(groups, *inputs)
    set_layout(layout)
    actual, _ = packed_attention(Module(), *inputs, None, scaling=0.3)
    torch.testing.assert_close(actual, expected)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad((actual * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def varlen_stand_in(query, key, value, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal, **settings):
    """What flash-attn documents of flash_attn_varlen_func: the causal mask is aligned at the bottom right."""
    assert causal and cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    out = []
    for k in range(len(cu_seqlens_q) - 1):
        q = query[cu_seqlens_q[k] : cu_seqlens_q[k + 1]].transpose(0, 1)
        own = slice(cu_seqlens_k[k], cu_seqlens_k[k + 1])
        assert q.shape[1] <= max_seqlen_q and key[own].shape[0] <= max_seqlen_k
        ks, vs = (x[own].transpose(0, 1).repeat_interleave(2, dim=0) for x in (key, value))
        mask = torch.ones(q.shape[1], ks.shape[1], dtype=torch.bool).tril(ks.shape[1] - q.shape[1])
        out.append(F.scaled_dot_product_attention(q, ks, vs, mask, scale=settings["softmax_scale"]).transpose(0, 1))
    return torch.cat(out)


@settings(max_examples=30)
@given(LAYOUTS)
def test_the_kernel_for_unequal_lengths_gets_what_gives_the_same(groups):
    layout = layout_of(groups, "cpu")
    inputs = states(layout.tokens)
    actual = packed.by_varlen(varlen_stand_in, layout, *inputs, dropout=0.0, scaling=0.3)
    torch.testing.assert_close(actual, dense(groups, *inputs))


@settings(max_examples=5)
@given(LAYOUTS)
def test_flex_attention_with_the_layouts_mask_gives_the_same(groups):
    from torch.nn.attention.flex_attention import flex_attention

    layout = layout_of(groups, "cpu")
    # torch's kernel gives no gradients on the CPU, and knows no float64 there
    inputs = [state.detach().float() for state in states(layout.tokens)]
    actual = packed.by_flex(flex_attention, layout, *inputs, scaling=0.3)
    torch.testing.assert_close(actual, dense(groups, *inputs), atol=1e-5, rtol=1e-5)


def test_without_the_layout_of_these_tokens_it_refuses():
    with pytest.raises(RuntimeError, match="has no layout"):
        packed_attention(Module(), *states(5), None)
    set_layout(layout_of([(2, [2])], "cpu"))
    with pytest.raises(RuntimeError, match="a layout of 1 x 4 tokens"):
        packed_attention(Module(), *states(5), None)


@pytest.mark.parametrize("name", ["Llama", "Qwen2", "Qwen3"])
def test_text_models_give_the_logits_of_each_row_by_itself(name):
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, attn_implementation="sdpa", initializer_range=0.3,
    )  # fmt: skip
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    lengths = Lengths([5, 3, 5], [4, 2, 1])
    prompts = {0: torch.randint(60, (5,)), 1: torch.randint(60, (3,))}
    numbers = [0, 1, 0]
    rows = [torch.cat([prompts[n], torch.randint(60, (r,))]) for n, r in zip(numbers, lengths.responses, strict=True)]
    with torch.no_grad():
        alone = [
            model(input_ids=row[None]).logits[0, -r - 1 : -1] for row, r in zip(rows, lengths.responses, strict=True)
        ]
        plan = pack(numbers, lengths, "cpu")
        positions = torch.cat([torch.arange(len(row)) for row in rows])
        model.config._attn_implementation = packed.PACKED_ATTENTION
        set_layout(plan.layout)
        logits = model(
            input_ids=torch.cat(rows)[plan.token_S][None], position_ids=positions[plan.token_S][None], use_cache=False
        ).logits[0]
    torch.testing.assert_close(logits[plan.predicts_N], torch.cat(alone), atol=1e-4, rtol=1e-4)
