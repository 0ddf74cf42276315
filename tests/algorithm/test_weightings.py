"""Every registered weighting: what all must hold, and each by hand-computed numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_twgrpo.algorithm.weightings import WEIGHTINGS, Group, make_weighting, weigh_groups
from verl_twgrpo.algorithm.weightings.scores import top_share

NAMES = WEIGHTINGS.names()
# every weighting as it comes, and what its settings open
VARIANTS = [(name, {}) for name in NAMES] + [
    ("group_divergence", {"weight": "eq5", "divergence": "live"}),
    ("top_entropy", {"scope": "response"}),
    ("top_entropy", {"scope": "group", "keep": 0.0}),
    ("video_contrast", {"reduce": "top_q", "score": "k3", "keep": 0.4, "trajectory_min": 0.9}),
    ("video_contrast", {"reduce": "curve", "score": "k3"}),
    ("video_contrast", {"reduce": "minmax", "score": "signed", "combine": "product"}),
    ("video_contrast", {"view": "blank+shuffled", "reduce": "top_q", "with_entropy": True, "combine": "union"}),
]
few = settings(max_examples=25)


def make_group(weighting, masks, seed, uid="a", number=0) -> Group:
    """Columns that could come from a model, with NaN where the token is not the model's own."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [len(mask) for mask in masks]
    by_position = 3 * torch.rand(max(lengths), generator=generator)
    columns = {}
    for name in weighting.read_columns():
        rows = []
        for length, mask in zip(lengths, masks, strict=True):
            values = torch.rand(length, generator=generator)
            if name == "divergence":
                values = by_position[:length].clone()
            elif name.startswith(("old_log_probs", "log_probs")):
                values = -3 * values
            elif name == "advantages":
                values = torch.randn(1, generator=generator).expand(length).clone()
            rows.append(values.masked_fill(~mask, math.nan))
        columns[name] = rows
    return Group(uid, list(range(len(masks))), masks, columns, number=number, vocabulary_size=97)


@st.composite
def mask_lists(draw):
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    masks = [torch.tensor(draw(st.lists(st.booleans(), min_size=n, max_size=n))) for n in lengths]
    for mask in masks:
        mask[0] = True
    return masks


def by_hand(name, options, columns, masks=None):
    weighting = make_weighting(name, options)
    lengths = [len(row) for row in next(iter(columns.values()))]
    masks = masks or [torch.ones(length, dtype=torch.bool) for length in lengths]
    group = Group("a", list(range(len(lengths))), masks, {n: [torch.tensor(r) for r in c] for n, c in columns.items()})
    group.vocabulary_size = 97
    weigh_groups(weighting, [group])
    return [weights.tolist() for weights in group.weights]


# ---- over the registry


@pytest.mark.parametrize(("name", "options"), VARIANTS)
@few
@given(mask_lists(), st.integers(0, 2**16), st.sampled_from(["none", "response", "batch"]))
def test_weights_are_finite_and_not_negative_and_1_at_tokens_of_others(name, options, masks, seed, normalise):
    weighting = make_weighting(name, options)
    groups = [make_group(weighting, masks, seed), make_group(weighting, masks, seed + 1, "b", 1)]
    assert weigh_groups(weighting, groups, normalise=normalise) == 0
    for group in groups:
        for weights, mask in zip(group.weights, masks, strict=True):
            assert weights.dtype == torch.float32 and weights.shape == mask.shape
            assert weights.isfinite().all() and (weights >= 0).all()
            assert (weights[~mask] == 1).all()


@pytest.mark.parametrize("name", NAMES)
@few
@given(mask_lists(), st.integers(0, 2**16))
def test_switched_off_it_is_plain_grpo_to_the_bit(name, masks, seed):
    weighting = make_weighting(name, WEIGHTINGS.get(name).off)
    assert not weighting.active
    group = make_group(weighting, masks, seed)
    advantages = [torch.randn(len(mask), generator=torch.Generator().manual_seed(seed)) for mask in masks]
    weigh_groups(weighting, [group], normalise="batch")
    for advantages_L, weights_L in zip(advantages, group.weights, strict=True):
        assert torch.equal(advantages_L * weights_L, advantages_L)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_no_gradient_flows_through_weights(name, options):
    weighting = make_weighting(name, options)
    group = make_group(weighting, [torch.ones(length, dtype=torch.bool) for length in (4, 2)], 0)
    for column in group.columns.values():
        for values in column:
            values.requires_grad_()
    weigh_groups(weighting, [group], normalise="batch")
    assert not any(weights.requires_grad for weights in group.weights)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_where_nothing_is_known_all_weigh_1(name, options):
    """No entropy, no difference between responses or videos, no advantage."""
    weighting = make_weighting(name, options)
    masks = [torch.ones(length, dtype=torch.bool) for length in (4, 2)]
    group = make_group(weighting, masks, 0)
    for column in group.columns.values():
        for values in column:
            values.zero_()
    weigh_groups(weighting, [group])
    assert [weights.tolist() for weights in group.weights] == [[1.0] * 4, [1.0] * 2]


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_a_group_that_is_not_a_number_weighs_1_and_leaves_the_others_alone(name, options):
    weighting = make_weighting(name, options)
    masks = [torch.ones(5, dtype=torch.bool)] * 2
    alone, beside = make_group(weighting, masks, 1), make_group(weighting, masks, 1)
    broken = make_group(weighting, masks, 2, "b", 1)
    broken.columns[weighting.read_columns()[0]][1][3] = math.nan
    weigh_groups(weighting, [alone])
    assert weigh_groups(weighting, [beside, broken]) == 1
    assert all(torch.equal(a, b) for a, b in zip(alone.weights, beside.weights, strict=True))
    assert all((weights == 1).all() for weights in broken.weights)


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_that_is_not_there_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"^strenght: weighting {name} has no such setting; choose from"):
        make_weighting(name, {"strenght": 1})


# ---- controls and normalisation


@few
@given(mask_lists(), st.integers(0, 2**16), st.sampled_from(["shuffled", "random"]))
def test_controls_keep_the_weights_and_lose_the_tokens(masks, seed, control):
    weighting = make_weighting("entropy_shaping")
    pairs = [[make_group(weighting, masks, seed + k, uid, k) for k, uid in enumerate("ab")] for _ in range(3)]
    plain, controlled, again = pairs
    weigh_groups(weighting, plain)
    weigh_groups(weighting, controlled, control=control, seed=1)
    weigh_groups(weighting, again[::-1], control=control, seed=1)

    def own(groups):
        return [w[m] for group in groups for w, m in zip(group.weights, group.masks, strict=True)]

    assert torch.equal(torch.cat(own(plain)).sort().values, torch.cat(own(controlled)).sort().values)
    assert all(torch.equal(a, b) for a, b in zip(own(controlled), own(again), strict=True))
    if control == "shuffled":
        for a, b in zip(own(plain), own(controlled), strict=True):
            assert torch.equal(a.sort().values, b.sort().values)


def test_the_mean_weight_is_brought_to_1_over_a_response_or_the_batch():
    weighting = make_weighting("group_divergence")
    masks = [torch.tensor([True, True, False, True]), torch.ones(2, dtype=torch.bool)]
    for normalise in ("response", "batch"):
        group = make_group(weighting, masks, 3)
        weigh_groups(weighting, [group], normalise=normalise)
        own = [w[m] for w, m in zip(group.weights, masks, strict=True)]
        means = [part.mean().item() for part in own] if normalise == "response" else [torch.cat(own).mean().item()]
        assert means == pytest.approx([1.0] * len(means))
        assert group.weights[0][2] == 1


# ---- one by one, on numbers computed by hand


def test_top_share_is_that_of_an_interpolated_quantile():
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 5, 10, 11, 101):
        values = torch.rand(n, generator=generator, dtype=torch.float64)
        for keep in (0.0, 0.1, 0.2, 0.35, 0.5, 1.0):
            assert torch.equal(top_share(values, keep), values >= values.quantile(1 - keep) - 1e-12), (n, keep)


def test_top_entropy_by_hand():
    entropies = {"entropy": [[0.1, 0.9, 0.2], [0.8, 0.3]]}
    # batch: the 0.6 quantile of .1 .2 .3 .8 .9 lies between .3 and .8
    assert by_hand("top_entropy", {"keep": 0.4}, entropies) == [[0, 1, 0], [1, 0]]
    # response: at or above the 0.6 quantile of each: between .2 and .9, and between .3 and .8
    assert by_hand("top_entropy", {"keep": 0.4, "scope": "response"}, entropies) == [[0, 1, 0], [1, 0]]
    assert by_hand("top_entropy", {"keep": 0.6, "scope": "response"}, entropies) == [[0, 1, 1], [1, 0]]


def test_entropy_shaping_by_hand():
    columns = {"entropy": [[1.0, 5.0], [1.0, 5.0], [1.0, 5.0]], "advantages": [[1.0, 1.0], [-1.0, -1.0], [0.0, 0.0]]}
    # A + min(0.4 H, |A| / 2): 1 + .4, 1 + .5; -1 + .4, -1 + .5
    weights = by_hand("entropy_shaping", {}, columns)
    assert weights[0] == pytest.approx([1.4, 1.5])
    assert weights[1] == pytest.approx([0.6, 0.5])
    assert weights[2] == [1.0, 1.0]


def test_gtpo_by_hand():
    columns = {
        "entropy": [[1.0, 2.0], [3.0], [1.0, 4.0], [4.0, 4.0]],
        "advantages": [[1.0, 1.0], [0.5], [-1.0, -1.0], [-0.5, -0.5]],
    }
    weights = by_hand("gtpo", {"share": 0.5}, columns)
    # right: 2 * 1 / 4 and 2 * 3 / 4 at position 0; alone at position 1
    assert weights[0] == pytest.approx([0.5 + 0.5 * 0.5, 1.0])
    assert weights[1] == pytest.approx([0.5 + 0.5 * 1.5])
    # wrong: 2 * 1 / 1.25 and 2 * 0.25 / 1.25 at position 0; equal at position 1
    assert weights[2] == pytest.approx([0.5 + 0.5 * 1.6, 1.0])
    assert weights[3] == pytest.approx([0.5 + 0.5 * 0.4, 1.0])


CONTRAST = {
    "old_log_probs": [[-1.0, -1.0, -1.0, -1.0], [-1.0, -1.0]],
    "log_probs_blank": [[-1.0, -1.5, -3.0, -0.5], [-1.0, -1.0]],
}  # d = 0, .5, 2, -.5; the second response never looks


def test_video_contrast_by_hand():
    assert by_hand("video_contrast", {}, CONTRAST) == [pytest.approx([1, 1.175, 1.7, 1.175]), [1, 1]]
    signed = by_hand("video_contrast", {"score": "signed"}, CONTRAST)[0]
    assert signed == pytest.approx([1 + 0.7 * 0.2, 1 + 0.7 * 0.4, 1.7, 1])
    top = {"reduce": "top_q", "keep": 0.5}
    assert by_hand("video_contrast", {**top, "score": "signed"}, CONTRAST) == [[0, 1, 1, 0], [1, 1]]
    # |d|: .5 twice, a tie at the quantile
    assert by_hand("video_contrast", top, CONTRAST) == [[0, 1, 1, 1], [1, 1]]
    # k3: exp(-d) - 1 + d = .1065, 1.1353, .1487; the one of -.5 is the larger
    assert by_hand("video_contrast", {**top, "score": "k3"}, CONTRAST)[0] == [0, 0, 1, 1]


def test_the_curve_of_pgpo_by_hand():
    k3 = [math.exp(-d) - 1 + d for d in (0.0, 0.5, 2.0, -0.5)]
    importance = [math.log(1 + s) / math.log(1 + k3[2]) for s in k3]
    expected = [i / 0.4 if i < 0.4 else 1 + 2 * (i - 0.4) / 0.6 for i in importance]
    weights = by_hand("video_contrast", {"score": "k3", "reduce": "curve"}, CONTRAST)
    assert weights[0] == pytest.approx(expected, rel=1e-5)
    assert expected[2] == 3 and weights[1] == [1, 1]


def test_the_trajectory_weight_of_vppo_by_hand():
    columns = {"old_log_probs": [[-1.0]] * 3, "log_probs_blank": [[-1.1], [-1.2], [-1.5]]}
    # means .1 .2 .5: n = 0 .25 1, of mean 5/12, so that 0.9 + (0.1 / (5/12)) n has mean 1
    weights = by_hand("video_contrast", {"alpha": 0.0, "trajectory_min": 0.9}, columns)
    assert [w for (w,) in weights] == pytest.approx([0.9, 0.96, 1.14])


def test_views_entropies_and_divergence_join_by_union_and_by_product():
    columns = {
        "old_log_probs": [[-1.0] * 5],
        "log_probs_blank": [[-2.0, -1.0, -1.0, -1.0, -1.0]],
        "log_probs_shuffled": [[-1.0, -2.0, -1.0, -1.0, -1.0]],
        "entropy": [[0.1, 0.1, 0.9, 0.1, 0.1]],
        "divergence": [[0.0, 0.0, 0.0, 2.0, 0.0]],
    }
    options = {"view": "blank+shuffled", "reduce": "top_q", "keep": 0.2, "with_entropy": True}
    assert by_hand("video_contrast", options, columns) == [[1, 1, 1, 0, 0]]
    assert by_hand("video_contrast", {**options, "combine": "union"}, columns) == [[1, 1, 1, 1, 0]]
    product = by_hand("video_contrast", {"combine": "product", "alpha": 0.5}, columns)
    assert product == [pytest.approx([1.5, 1, 1, 1.5, 1])]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"view": "black"}, "view='black': choose one of blank"),
        ({"view": "blank+blank"}, "twice"),
        ({"view": "blank+shuffled"}, "need reduce=top_q"),
        ({"keep": 1.5}, "keep=1.5: need a number from 0 to 1"),
        ({"tau": 1.0}, "tau=1.0"),
        ({"reduce": "curve", "score": "signed"}, "score='signed'"),
        ({"combine": "union"}, "need reduce=top_q"),
        ({"stride": 0}, "stride=0"),
    ],
)
def test_settings_of_video_contrast_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_weighting("video_contrast", options)


def test_the_passes_that_video_contrast_asks_for():
    weighting = make_weighting("video_contrast", {"view": "patches+sparse", "reduce": "top_q", "stride": 2})
    assert weighting.extra_passes == {
        "log_probs_patches": {"name": "patches", "share": 0.5},
        "log_probs_sparse": {"name": "sparse", "stride": 2},
    }
    assert weighting.divergence is None
    assert make_weighting("video_contrast", {"combine": "product"}).divergence == "jsd"
