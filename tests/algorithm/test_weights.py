"""Token weights: Eq. 5 in both readings, scopes of Table A2, degenerate groups."""

from __future__ import annotations

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_twgrpo.algorithm import chunked_group_divergence, degenerate_range, token_weights

KINDS = ("jsd", "released", "live")
V = 1021


@st.composite
def divergences(draw) -> tuple[torch.Tensor, list[int], str]:
    """Divergences that are in no way degenerate, the lengths that go with them, and their kind."""
    lengths = draw(st.lists(st.integers(1, 12), min_size=2, max_size=8).filter(lambda lengths: max(lengths) > 1))
    values = draw(st.lists(st.floats(0, 1), min_size=max(lengths), max_size=max(lengths)))
    values[0], values[-1] = draw(st.sampled_from([(0.0, 1.0), (1.0, 0.0)]))
    kind = draw(st.sampled_from(KINDS))
    unit = {"jsd": len(lengths), "released": V, "live": 1}[kind]
    return torch.tensor(values) * unit, lengths, kind


alphas = st.sampled_from([0.3, 0.7, 1.5])
few = settings(max_examples=50)


@few
@given(divergences(), alphas)
def test_eq5_is_eq_5_as_printed(case, alpha):
    divergence_T, lengths, kind = case
    weights_T = token_weights(divergence_T, lengths, alpha, weight="eq5", kind=kind, vocabulary_size=V)
    expected_T = torch.tensor(reference.eq5_weights(divergence_T.double().tolist(), alpha))
    torch.testing.assert_close(weights_T, expected_T, rtol=1e-5, atol=1e-5)
    assert weights_T.min() == 0.0


@few
@given(divergences())
def test_one_plus_is_the_released_code_at_alpha_0_7(case):
    divergence_T, lengths, kind = case
    weights_T = token_weights(divergence_T, lengths, kind=kind, vocabulary_size=V)
    expected_T = torch.tensor(reference.released_weights(divergence_T.double().tolist()))
    torch.testing.assert_close(weights_T, expected_T, rtol=1e-5, atol=1e-5)


@few
@given(divergences(), alphas)
def test_one_plus_lies_between_1_and_1_plus_alpha_and_attains_both(case, alpha):
    divergence_T, lengths, kind = case
    weights_T = token_weights(divergence_T, lengths, alpha, kind=kind, vocabulary_size=V)
    assert weights_T.dtype == torch.float32
    assert weights_T[divergence_T.argmin()] == 1.0
    assert weights_T[divergence_T.argmax()] == pytest.approx(1 + alpha)
    assert ((weights_T >= 1.0) & (weights_T <= 1 + alpha + 1e-6)).all()


@few
@given(divergences(), st.sampled_from(["all", "content", "padding", "none"]))
def test_alpha_0_is_no_weighting_to_the_bit(case, scope):
    divergence_T, lengths, kind = case
    weights_T = token_weights(divergence_T, lengths, 0.0, scope=scope, kind=kind, vocabulary_size=V)
    assert torch.equal(weights_T, torch.ones_like(weights_T))


# ---- Table A2

SCOPED = torch.tensor([2.0, 4.0, 3.0, 8.0, 6.0])
SCOPED_LENGTHS = [3, 5, 5]


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("all", [1.0, 1 + 1 / 3, 1 + 1 / 6, 2.0, 1 + 2 / 3]),
        # minimum and maximum of the three positions where all rows are live; the others weigh 1
        ("content", [1.0, 2.0, 1.5, 1.0, 1.0]),
        ("padding", [1.0, 1.0, 1.0, 2.0, 1.0]),
        ("none", [1.0] * 5),
    ],
)
def test_scope_limits_the_weights_and_their_min_max(scope, expected):
    weights_T = token_weights(SCOPED, SCOPED_LENGTHS, alpha=1.0, scope=scope)
    torch.testing.assert_close(weights_T, torch.tensor(expected))


def test_eq5_weighs_positions_out_of_scope_1():
    weights_T = token_weights(SCOPED, SCOPED_LENGTHS, alpha=1.0, weight="eq5", scope="content")
    torch.testing.assert_close(weights_T, torch.tensor([0.0, 2.0, 1.0, 1.0, 1.0]))


@pytest.mark.parametrize(("scope", "lengths"), [("padding", [5, 5, 5]), ("content", [0, 5, 5])])
def test_a_scope_without_positions_weighs_nothing(scope, lengths):
    assert torch.equal(token_weights(SCOPED, lengths, scope=scope), torch.ones(5))


# ---- degenerate groups


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", ["one_plus", "eq5"])
def test_equal_divergences_and_single_positions_weigh_1(kind, weight):
    """Literal Eq. 5 is 0/0 here."""
    for divergence_T, lengths in [
        (torch.full((4,), 0.3), [4, 2]),
        (torch.tensor([2.0]), [1, 1]),
        (torch.zeros(0), [0]),
    ]:
        weights_T = token_weights(divergence_T, lengths, weight=weight, kind=kind, vocabulary_size=V)
        assert torch.equal(weights_T, torch.ones(len(divergence_T)))


def head_and_rows(same: bool, G: int = 8, T: int = 40, H: int = 64):
    """Logits spread as a language model's (standard deviation 3), with the noise of bfloat16 on every row."""
    generator = torch.Generator().manual_seed(1)
    head_VH = torch.randn(V, H, generator=generator) * 3 / H**0.5
    rows_GTH = torch.randn(1 if same else G, T, H, generator=generator).expand(G, T, H)
    noise_GTH = 1 + torch.randn(G, T, H, generator=generator) * 2**-8
    return (rows_GTH * noise_GTH).bfloat16().reshape(G * T, H), [T] * G, head_VH.bfloat16()


@pytest.mark.parametrize("kind", KINDS)
def test_identical_responses_weigh_1_under_bfloat16_noise_and_different_ones_do_not(kind):
    result = chunked_group_divergence(*head_and_rows(same=True), kind=kind)
    assert result.divergence_T.max() > 0, "there must be noise for the guard to catch"
    weights_T = token_weights(result.divergence_T, [40] * 8, kind=kind, vocabulary_size=V)
    assert torch.equal(weights_T, torch.ones(40))

    result = chunked_group_divergence(*head_and_rows(same=False), kind=kind)
    weights_T = token_weights(result.divergence_T, [40] * 8, kind=kind, vocabulary_size=V)
    assert weights_T.min() == 1.0 and weights_T.max() == pytest.approx(1.7)


def test_a_range_is_degenerate_by_row_by_column_or_by_share_of_the_bound():
    assert degenerate_range("jsd", 8) == pytest.approx(8e-2)
    assert degenerate_range("released", 8, 152064) == pytest.approx(1520.64)
    assert degenerate_range("live", 8) == pytest.approx(1e-2)
    just_below, just_above = torch.tensor([0.0, 7.9e-2]), torch.tensor([0.0, 8.1e-2])
    assert token_weights(just_below, [2] * 8).tolist() == [1.0, 1.0]
    assert token_weights(just_above, [2] * 8).tolist() == pytest.approx([1.0, 1.7])


# ---- the numbers of version 0.2.0, by the code that it had

GOLDEN = {
    "jsd": [1.57144427, 1.70000005, 1.55836165, 1.45256078, 1.0, 1.08005476, 1.18506491],
    "released": [1.11968851, 1.43062544, 1.70000005, 1.07742774, 1.0, 1.00940347, 1.09430707],
    "live": [1.53992271, 1.62730026, 1.70000005, 1.65271997, 1.03133023, 1.01373589, 1.0],
}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_the_first_version(kind):
    lengths, N, H, columns = [4, 7, 2, 7], 20, 8, 67
    hidden_NH, head_VH = torch.sin(torch.arange(N * H) * 0.7).view(N, H), 3 * torch.cos(torch.arange(columns * H) * 1.3)
    result = chunked_group_divergence(hidden_NH, lengths, head_VH.view(columns, H), kind=kind, temperature=0.9)
    weights_T = token_weights(result.divergence_T, lengths, kind=kind, vocabulary_size=result.vocabulary_size)
    torch.testing.assert_close(weights_T, torch.tensor(GOLDEN[kind]), rtol=2e-6, atol=0)


# ---- gradient, errors


def test_weights_have_the_gradient_of_the_divergence():
    divergence_T = torch.tensor([0.5, 2.0, 1.0], requires_grad=True)
    token_weights(divergence_T, [3, 3], alpha=1.0)[2].backward()
    # n = (1 - 0.5) / (2 - 0.5): d/dD_2 = 1 / 1.5, d/dmin = -(2 - 1) / 1.5 ** 2, d/dmax = -(1 - 0.5) / 1.5 ** 2
    torch.testing.assert_close(divergence_T.grad, torch.tensor([-1 / 2.25, -0.5 / 2.25, 1 / 1.5]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": "two"}, "weight 'two' is unknown, choose one of one_plus, eq5"),
        ({"scope": "tail"}, "scope 'tail' is unknown, choose one of all, content, padding, none"),
        ({"kind": "kl"}, "divergence 'kl' is unknown"),
        ({"kind": "released"}, "give vocabulary_size"),
        ({"lengths_G": [4, 4]}, r"divergence_T has shape \(5,\), expected \[4\]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        token_weights(**{"divergence_T": SCOPED, "lengths_G": SCOPED_LENGTHS, **changes})
