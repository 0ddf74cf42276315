"""Divergence of a group: the plain and the chunked function against the float64 reference, and the invariants."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_twgrpo.algorithm import chunked_group_divergence, group_divergence, head_pass

KINDS = ("jsd", "released", "live")
H = 8

# float32 arithmetic over V columns. jsd: nats, absolute per row, since entropies of up to ln V cancel in it. released
# and live: relative to the largest value.
JSD_TOLERANCE_PER_ROW = 4e-6
RELATIVE_TOLERANCE = 2e-5


def assert_divergence_close(actual_T, expected_T, kind: str, G: int) -> None:
    expected_T = torch.as_tensor(expected_T, dtype=torch.float64)
    scale = expected_T.abs().max().item() if len(expected_T) else 0.0
    atol = JSD_TOLERANCE_PER_ROW * G if kind == "jsd" else RELATIVE_TOLERANCE * max(scale, 1.0)
    torch.testing.assert_close(actual_T.double(), expected_T, rtol=RELATIVE_TOLERANCE, atol=atol)


@dataclass
class Group:
    """A random group: packed hidden states, lengths and a head."""

    hidden_NH: torch.Tensor
    lengths: list[int]
    head_VH: torch.Tensor

    @property
    def G(self) -> int:
        return len(self.lengths)

    def logits_NV(self, temperature: float = 1.0) -> torch.Tensor:
        return self.hidden_NH.double() @ self.head_VH.double().t() / temperature

    def reference_rows(self, temperature: float = 1.0) -> reference.Rows:
        return list(torch.log_softmax(self.logits_NV(temperature), -1).split(self.lengths))

    def log_probs_GTV(self, temperature: float = 1.0) -> torch.Tensor:
        """Padded with NaN, which must not be read."""
        padded = torch.full((self.G, max(self.lengths), len(self.head_VH)), math.nan, dtype=torch.float64)
        for row, log_probs in enumerate(self.reference_rows(temperature)):
            padded[row, : len(log_probs)] = log_probs
        return padded

    def divergence(self, kind: str, **kwargs) -> torch.Tensor:
        return chunked_group_divergence(self.hidden_NH, self.lengths, self.head_VH, kind=kind, **kwargs).divergence_T


def make_group(lengths: list[int], V: int, seed: int = 0, scale: float = 2.0, dtype=torch.float32) -> Group:
    generator = torch.Generator().manual_seed(seed)
    hidden_NH = torch.randn(sum(lengths), H, generator=generator)
    head_VH = torch.randn(V, H, generator=generator) * scale / H**0.5
    return Group(hidden_NH.to(dtype), lengths, head_VH.to(dtype))


@st.composite
def groups(draw, max_rows: int = 6, min_length: int = 0, min_rows: int = 1) -> Group:
    lengths = draw(st.lists(st.integers(min_length, 9), min_size=min_rows, max_size=max_rows).filter(any))
    return make_group(
        lengths,
        V=draw(st.sampled_from([2, 7, 31, 130])),
        seed=draw(st.integers(0, 2**16)),
        scale=draw(st.sampled_from([0.1, 1.0, 4.0, 20.0])),
    )


kinds = st.sampled_from(KINDS)
few = settings(max_examples=30)

# G 1, 2, 3, 5, 8, 12, 64; T 1 to 130; ragged, one survivor, all equal, rows without tokens
SIZES = [
    ([1], 7),
    ([4], 97),
    ([130, 2], 31),
    ([17, 17], 32003),
    ([3, 0, 5], 1021),
    ([1, 1, 1], 7),
    ([9, 8, 33, 1, 12], 123),
    ([64] * 5, 257),
    ([40, 3, 3, 2, 3, 1, 3, 3], 47),
    ([11, 30, 7, 30, 1, 25, 13, 2], 5003),
    ([13, 2, 8, 130, 4, 4, 9, 1, 60, 61, 62, 0], 129),
    ([(7 * i) % 19 for i in range(64)], 66),
    ([2] * 64, 7),
    ([3, 1, 2], 152064),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("lengths", "V"), SIZES, ids=lambda value: str(value)[:30])
def test_plain_and_chunked_equal_the_reference(lengths, V, kind):
    group = make_group(lengths, V, seed=V)
    expected_T = reference.DIVERGENCES[kind](group.reference_rows())
    assert_divergence_close(group_divergence(group.log_probs_GTV(), lengths, kind), expected_T, kind, group.G)
    assert_divergence_close(group_divergence(group.log_probs_GTV().float(), lengths, kind), expected_T, kind, group.G)
    assert_divergence_close(group.divergence(kind, tokens_per_chunk=29), expected_T, kind, group.G)
    assert_divergence_close(group.divergence(kind), expected_T, kind, group.G)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_inputs_lose_nothing_to_accumulation(kind):
    """Logits are float32 sums of exact products: the reference with the same bfloat16 numbers is met as by float32."""
    group = make_group([9, 14, 3, 14], 1021, scale=6.0, dtype=torch.bfloat16)
    targets_N = torch.arange(sum(group.lengths))
    result = chunked_group_divergence(
        group.hidden_NH, group.lengths, group.head_VH, kind=kind, targets_N=targets_N, tokens_per_chunk=8
    )
    expected_T = reference.DIVERGENCES[kind](group.reference_rows())
    assert_divergence_close(result.divergence_T, expected_T, kind, group.G)
    log_probs_NV = torch.log_softmax(group.logits_NV(), -1)
    torch.testing.assert_close(
        result.log_probs_N.double(), log_probs_NV[torch.arange(len(targets_N)), targets_N], rtol=1e-5, atol=1e-5
    )


def test_a_wide_bfloat16_head_is_converted_in_pieces(monkeypatch):
    monkeypatch.setattr(head_pass, "UPCAST_WEIGHTS", 10 * H)
    group = make_group([5, 7], 123, dtype=torch.bfloat16)
    bias_V = torch.linspace(-1, 1, 123)
    logits_NV = (group.logits_NV() + bias_V.double()) / 0.7
    result = chunked_group_divergence(
        group.hidden_NH, group.lengths, group.head_VH, bias_V, temperature=0.7, tokens_per_chunk=5
    )
    expected_N = torch.distributions.Categorical(logits=logits_NV).entropy()
    torch.testing.assert_close(result.entropy_N.double(), expected_N, rtol=1e-5, atol=1e-5)


def test_autocast_around_the_pass_rounds_nothing():
    group = make_group([9, 14, 3], 1021)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside_T = group.divergence("jsd")
    assert torch.equal(inside_T, group.divergence("jsd"))


@pytest.mark.slow
def test_default_chunks_of_a_long_ragged_group_equal_the_reference():
    """More rows than one default chunk, and blocks smaller than a chunk."""
    group = make_group([130, 90, 128, 130, 7], 5003, seed=3)
    for kind in KINDS:
        expected_T = reference.DIVERGENCES[kind](group.reference_rows())
        assert_divergence_close(group.divergence(kind), expected_T, kind, group.G)


# ---- log-prob, entropy, log-sum-exp of the same pass


@few
@given(groups(), st.sampled_from([0.3, 1.0, 1.7]), st.integers(1, 40))
def test_log_probs_and_entropy_follow_their_tokens_through_the_pass(group, temperature, tokens_per_chunk):
    logits_NV = group.logits_NV(temperature)
    targets_N = torch.arange(sum(group.lengths)) % len(group.head_VH)
    result = chunked_group_divergence(
        group.hidden_NH,
        group.lengths,
        group.head_VH,
        temperature=temperature,
        targets_N=targets_N,
        tokens_per_chunk=tokens_per_chunk,
    )
    log_probs_NV = torch.log_softmax(logits_NV, -1)
    scale = logits_NV.abs().max().item() + 1
    expected = {
        "log_probs_N": log_probs_NV.gather(1, targets_N[:, None])[:, 0],
        "entropy_N": torch.special.entr(log_probs_NV.exp()).sum(-1),
    }
    for name, expected_N in expected.items():
        actual_N = getattr(result, name)
        assert actual_N.dtype == torch.float32
        torch.testing.assert_close(actual_N.double(), expected_N, rtol=1e-6, atol=1e-6 * scale, msg=name)


def test_log_probs_and_entropy_are_those_that_verl_computes():
    verl_F = pytest.importorskip("verl.utils.torch_functional")
    group = make_group([9, 14, 3], 1021, scale=5.0)
    logits_NV = (group.hidden_NH @ group.head_VH.t()) / 0.8
    targets_N = torch.arange(26) * 7
    result = chunked_group_divergence(
        group.hidden_NH, group.lengths, group.head_VH, temperature=0.8, targets_N=targets_N
    )
    torch.testing.assert_close(
        result.log_probs_N, verl_F.logprobs_from_logits(logits_NV, targets_N), rtol=1e-5, atol=2e-5
    )
    torch.testing.assert_close(result.entropy_N, verl_F.entropy_from_logits(logits_NV), rtol=1e-5, atol=2e-5)


def test_without_targets_there_are_no_log_probs():
    group = make_group([3, 2], 31)
    assert chunked_group_divergence(group.hidden_NH, group.lengths, group.head_VH).log_probs_N is None


# ---- invariants (design.md, section 3)


@few
@given(groups())
def test_jsd_keeps_within_the_bound_by_live_rows(group):
    """0 <= D_t <= k ln G + (G - k) ln(G / (G - k)) <= G ln G."""
    G = group.G
    for t, value in enumerate(group.divergence("jsd").tolist()):
        k = sum(length > t for length in group.lengths)
        bound = k * math.log(G) + ((G - k) * math.log(G / (G - k)) if k < G else 0.0)
        assert 0 <= value <= bound + JSD_TOLERANCE_PER_ROW * G
        assert bound <= G * math.log(G) + 1e-9


@pytest.mark.parametrize(("G", "k"), [(8, 8), (8, 3), (5, 1)])
def test_jsd_attains_its_bound_with_certain_rows_of_a_large_vocabulary(G, k):
    """k rows sure of k different tokens, the others ended: as V grows D_t tends to the bound from below."""
    V = 10**5
    log_probs = torch.full((G, 1, V), -200.0)
    for row in range(k):
        log_probs[row, 0, row] = 0.0
    bound = k * math.log(G) + ((G - k) * math.log(G / (G - k)) if k < G else 0.0)
    value = group_divergence(log_probs, [1] * k + [0] * (G - k)).item()
    assert value == pytest.approx(bound, rel=2e-3)
    assert value <= bound + 1e-5


@few
@given(groups(), kinds)
def test_divergence_is_never_negative(group, kind):
    assert (group.divergence(kind) >= 0).all()


@few
@given(st.integers(1, 8), st.integers(1, 9), st.sampled_from([7, 130, 1021]), st.integers(0, 2**16), kinds)
def test_identical_rows_have_no_divergence(G, T, V, seed, kind):
    one = make_group([T], V, seed, scale=4.0)
    group = Group(one.hidden_NH.repeat(G, 1), [T] * G, one.head_VH)
    tolerance = JSD_TOLERANCE_PER_ROW * G if kind == "jsd" else 1e-5
    assert group.divergence(kind).max() <= tolerance
    assert group_divergence(group.log_probs_GTV(), group.lengths, kind).max() <= 1e-9


@few
@given(groups(min_rows=2, min_length=1), kinds)
def test_a_common_first_context_gives_no_divergence_there(group, kind):
    """Position 0 has one context, the prompt: D_0 = 0, and it is the minimum of D for jsd."""
    starts = [sum(group.lengths[:row]) for row in range(group.G)]
    group.hidden_NH[starts] = group.hidden_NH[0].clone()
    divergence_T = group.divergence(kind)
    assert divergence_T[0] <= (JSD_TOLERANCE_PER_ROW * group.G if kind == "jsd" else 1e-5)
    assert divergence_T[0] <= divergence_T.min() + 1e-4


@few
@given(groups(), kinds, st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter_and_tokens_keep_their_values(group, kind, random):
    order = list(range(group.G))
    random.shuffle(order)
    parts, targets = group.hidden_NH.split(group.lengths), torch.arange(sum(group.lengths)) % len(group.head_VH)
    target_parts = targets.split(group.lengths)
    result = chunked_group_divergence(group.hidden_NH, group.lengths, group.head_VH, kind=kind, targets_N=targets)
    shuffled = chunked_group_divergence(
        torch.cat([parts[row] for row in order]),
        [group.lengths[row] for row in order],
        group.head_VH,
        kind=kind,
        targets_N=torch.cat([target_parts[row] for row in order]),
    )
    assert_divergence_close(shuffled.divergence_T, result.divergence_T, kind, group.G)
    expected = result.log_probs_N.split(group.lengths)
    torch.testing.assert_close(shuffled.log_probs_N, torch.cat([expected[row] for row in order]), rtol=1e-5, atol=1e-4)


@few
@given(groups(), kinds, st.integers(0, 2**16))
def test_order_of_the_vocabulary_does_not_matter(group, kind, seed):
    order = torch.randperm(len(group.head_VH), generator=torch.Generator().manual_seed(seed))
    permuted = Group(group.hidden_NH, group.lengths, group.head_VH[order])
    assert_divergence_close(permuted.divergence(kind), group.divergence(kind), kind, group.G)


@few
@given(groups(), kinds, st.integers(1, 64), st.sampled_from([4, 1000, 2**21]))
def test_chunk_and_block_sizes_do_not_matter(group, kind, tokens_per_chunk, block_bytes):
    expected_T = group.divergence(kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(head_pass.BLOCK_BYTES, "cpu", block_bytes)
        actual_T = group.divergence(kind, tokens_per_chunk=tokens_per_chunk)
    assert_divergence_close(actual_T, expected_T, kind, group.G)


@few
@given(groups(), kinds, st.integers(0, 3))
def test_packing_does_not_matter(group, kind, padding):
    """Rows cut out of a padded batch, as with remove-padding off, give what packed rows give."""
    T = max(group.lengths) + padding
    padded_GTH = torch.full((group.G, T, H), 7.0)
    for row, part in enumerate(group.hidden_NH.split(group.lengths)):
        padded_GTH[row, : len(part)] = part
    live_GT = torch.arange(T) < torch.tensor(group.lengths)[:, None]
    cut = chunked_group_divergence(padded_GTH[live_GT], torch.tensor(group.lengths), group.head_VH, kind=kind)
    assert torch.equal(cut.divergence_T, group.divergence(kind))


@few
@given(groups(), kinds, st.sampled_from([0.25, 0.9, 1.0, 3.0]))
def test_temperature_divides_the_logits(group, kind, temperature):
    expected_T = group_divergence(group.log_probs_GTV(temperature), group.lengths, kind)
    assert_divergence_close(group.divergence(kind, temperature=temperature), expected_T, kind, 4 * group.G)


@few
@given(groups(), kinds, st.floats(-20, 20))
@pytest.mark.slow
def test_a_constant_added_to_all_logits_changes_nothing(group, kind, constant):
    targets_N = torch.zeros(sum(group.lengths), dtype=torch.int64)
    plain = chunked_group_divergence(group.hidden_NH, group.lengths, group.head_VH, kind=kind, targets_N=targets_N)
    bias_V = torch.full((len(group.head_VH),), constant)
    shifted = chunked_group_divergence(
        group.hidden_NH, group.lengths, group.head_VH, bias_V, kind=kind, targets_N=targets_N
    )
    # the shifted logits themselves are rounded to 24 bits
    assert_divergence_close(shifted.divergence_T, plain.divergence_T, kind, 4 * group.G)
    torch.testing.assert_close(shifted.log_probs_N, plain.log_probs_N, rtol=1e-5, atol=3e-5)
    torch.testing.assert_close(shifted.entropy_N, plain.entropy_N, rtol=1e-5, atol=3e-5)


@few
@given(groups(), st.sampled_from(["jsd", "released"]))
def test_an_ended_row_is_a_row_of_uniform_distributions(group, kind):
    """Hidden state 0 makes all logits equal: filled up so, no row has ended, and the analytic fill must agree."""
    T = max(group.lengths)
    filled = torch.cat(
        [torch.nn.functional.pad(part, (0, 0, 0, T - len(part))) for part in group.hidden_NH.split(group.lengths)]
    )
    explicit_T = Group(filled, [T] * group.G, group.head_VH).divergence(kind)
    assert_divergence_close(group.divergence(kind), explicit_T, kind, group.G)


@few
@given(groups(), kinds, st.integers(1, 9))
def test_a_prefix_of_the_group_has_the_prefix_of_the_divergence(group, kind, T):
    parts = [part[:T] for part in group.hidden_NH.split(group.lengths)]
    cut = Group(torch.cat(parts), [len(part) for part in parts], group.head_VH)
    expected_T = group.divergence(kind)[: max(cut.lengths)]
    assert_divergence_close(cut.divergence(kind), expected_T, kind, group.G)


@few
@given(groups())
def test_a_duplicated_group_doubles_jsd_and_leaves_released(group):
    double = Group(group.hidden_NH.repeat(2, 1), group.lengths * 2, group.head_VH)
    assert_divergence_close(double.divergence("jsd"), 2 * group.divergence("jsd"), "jsd", double.G)
    assert_divergence_close(double.divergence("released"), group.divergence("released"), "released", double.G)


# ---- live: what it mends


@few
@given(groups())
def test_live_lies_between_0_and_1(group):
    divergence_T = group.divergence("live")
    assert ((divergence_T >= 0) & (divergence_T <= 1 + 1e-6)).all()


@pytest.mark.parametrize("k", [2, 3, 8])
def test_live_is_1_where_rows_are_sure_of_different_tokens_however_many_they_are(k):
    head_VH = torch.eye(H)
    hidden_NH = 100 * torch.eye(H)[:k]
    assert chunked_group_divergence(hidden_NH, [1] * k, head_VH, kind="live").divergence_T.item() == pytest.approx(1.0)


@few
@given(groups(max_rows=1))
def test_live_is_0_for_one_row(group):
    assert (group.divergence("live") == 0).all()


@few
@given(groups(), st.integers(1, 4))
def test_live_does_not_know_how_many_rows_have_ended(group, ended):
    """The same live rows beside rows that ended at once."""
    with_ended = Group(group.hidden_NH, group.lengths + [0] * ended, group.head_VH)
    assert_divergence_close(with_ended.divergence("live"), group.divergence("live"), "live", group.G)


def tail_of_one_context(rows_GV: torch.Tensor) -> dict[str, list[float]]:
    """Divergences of rows that stay as they are from position to position, and end one after the other."""
    G, V = rows_GV.shape
    log_probs_GTV = torch.log_softmax(rows_GV, -1)[:, None].expand(G, G, V)
    return {kind: group_divergence(log_probs_GTV, range(1, G + 1), kind).tolist() for kind in KINDS}


def test_in_a_ragged_tail_jsd_falls_and_released_rises_by_length_alone_and_live_stays():
    tail = tail_of_one_context(torch.randn(8, 4096, generator=torch.Generator().manual_seed(0)) * 3)
    assert sorted(tail["jsd"], reverse=True) == tail["jsd"] and tail["jsd"][6] < tail["jsd"][0] / 2
    assert sorted(tail["released"][:6]) == tail["released"][:6] and tail["released"][5] > 2 * tail["released"][0]
    assert max(tail["live"][:7]) < 1.1 * min(tail["live"][:7])


def test_in_a_ragged_tail_of_identical_rows_only_live_sees_that_they_agree():
    tail = tail_of_one_context(torch.randn(1, 4096, generator=torch.Generator().manual_seed(0)).expand(8, -1) * 3)
    assert min(tail["jsd"][1:]) > 1 and min(tail["released"][1:]) > 1000
    assert max(tail["live"]) < 1e-5


# ---- masked vocabulary


@few
@given(groups(), kinds, st.data())
def test_masked_columns_are_as_good_as_absent_to_the_plain_divergence(group, kind, data):
    V = len(group.head_VH)
    masked = data.draw(st.lists(st.integers(0, V - 1), min_size=1, max_size=max(V // 2, 1), unique=True))
    kept = [column for column in range(V) if column not in masked]
    if not kept:
        return
    log_probs_GTV = group.log_probs_GTV()
    log_probs_GTV[..., masked] = -math.inf
    log_probs_GTV -= log_probs_GTV.logsumexp(-1, keepdim=True)
    plain_T = group_divergence(log_probs_GTV, group.lengths, kind)
    assert_divergence_close(plain_T, group_divergence(log_probs_GTV[..., kept], group.lengths, kind), kind, group.G)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_a_number_comes_out_as_none(kind):
    """A broken activation must be seen, not look like responses that agree."""
    group = make_group([4, 4, 3], 31)
    log_probs_GTV = group.log_probs_GTV()
    log_probs_GTV[1, 2] = math.nan
    divergence_T = group_divergence(log_probs_GTV, group.lengths, kind)
    assert divergence_T.isnan().tolist() == [False, False, True, False]
    group.hidden_NH[6] = math.nan  # response 1, position 2
    assert group.divergence(kind).isnan().tolist() == [False, False, True, False]


def test_a_token_only_one_row_rules_out_gives_a_finite_divergence():
    """-inf in one row and not in another: the token has probability 0 there and stays in V."""
    log_probs_GTV = torch.log(torch.tensor([[[0.5, 0.5, 0.0]], [[0.25, 0.25, 0.5]]]))
    expected = 0.5 * math.log(0.5 / 0.375) * 2 + 0.25 * math.log(0.25 / 0.375) * 2 + 0.5 * math.log(0.5 / 0.25)
    assert group_divergence(log_probs_GTV, [1, 1]).item() == pytest.approx(expected, rel=1e-5)
    assert group_divergence(log_probs_GTV, [1, 1], "released").isfinite().all()


# ---- gradients, memory, errors


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_divergence_has_the_gradient_of_its_value(kind):
    group = make_group([3, 2, 3], 5, scale=1.0)
    logits_GTV = torch.randn(3, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    logits_GTV.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda logits: group_divergence(torch.log_softmax(logits, -1), group.lengths, kind), logits_GTV
    )


def test_the_plain_divergence_has_finite_gradients_with_masked_columns():
    logits_GTV = torch.randn(2, 3, 5)
    logits_GTV[..., 2] = -math.inf
    logits_GTV.requires_grad_()
    group_divergence(torch.log_softmax(logits_GTV, -1), [3, 1]).sum().backward()
    assert logits_GTV.grad[..., [0, 1, 3, 4]].isfinite().all()


def peak_extra_bytes(call) -> int:
    """Most memory that torch held for the call at any time, from its allocator's record."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_peak_memory_follows_tokens_per_chunk_times_vocabulary_and_not_positions(kind):
    def peak(T: int, V: int, rows: int) -> int:
        lengths = [T, T, T - 3, T]
        group = make_group(lengths, V)
        return peak_extra_bytes(lambda: group.divergence(kind, tokens_per_chunk=rows))

    short, long = peak(32, 4099, 16), peak(256, 4099, 16)
    whole_group = 4 * 256 * 4099 * 4
    assert long < whole_group / 15
    # what grows with T is a few numbers a token, nothing times V
    assert long - short < 4 * 224 * 100
    assert peak(32, 4099, 16) <= 3 * 16 * 4099 * 4 + 4 * 32 * 100
    assert 1.8 < peak(64, 4099, 32) / peak(64, 4099, 16) < 2.2
    assert 1.8 < peak(64, 2 * 4099, 16) / peak(64, 4099, 16) < 2.2


def test_a_group_without_tokens_gives_empty_results():
    group = make_group([0, 0], 7)
    result = chunked_group_divergence(group.hidden_NH, [0, 0], group.head_VH, targets_N=torch.zeros(0, dtype=int))
    assert result.divergence_T.shape == result.log_probs_N.shape == result.entropy_N.shape == (0,)
    assert group_divergence(torch.zeros(2, 0, 7), [0, 0]).shape == (0,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "kl"}, "divergence 'kl' is unknown, choose one of jsd, released, live"),
        ({"lengths_G": [3, 3]}, r"expected \[6, H\]"),
        ({"lengths_G": []}, "no responses"),
        ({"lengths_G": [6, -1]}, "row 1 has negative length -1"),
        ({"head_VH": torch.zeros(7, H + 1)}, "head_VH has shape"),
        ({"bias_V": torch.zeros(6)}, "bias_V has shape"),
        ({"bias_V": torch.full((7,), -math.inf)}, "bias_V has infinite values"),
        ({"targets_N": torch.zeros(4, dtype=torch.int64)}, "targets_N has shape"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"tokens_per_chunk": 0}, "tokens_per_chunk is 0"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    arguments = {"hidden_NH": torch.zeros(5, H), "lengths_G": [3, 2], "head_VH": torch.zeros(7, H), **changes}
    with pytest.raises(ValueError, match=message):
        chunked_group_divergence(**arguments)


def test_log_probs_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"log_probs_GTV has shape \(2, 3, 7\), expected \[2, at least 4, V\]"):
        group_divergence(torch.zeros(2, 3, 7), [4, 1])
