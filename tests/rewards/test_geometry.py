"""Overlaps against counting unit cells, and the bounds that every score relies on."""

from __future__ import annotations

from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_twgrpo.rewards.geometry import (
    box_iou,
    clip_box,
    clip_intervals,
    interval_giou,
    interval_iou,
    length,
    merge,
    shared_length,
)
from verl_twgrpo.rewards.tasks.ordering import kendall_tau
from verl_twgrpo.rewards.tasks.spatial_grounding import BoxesTruth, matched_iou
from verl_twgrpo.rewards.truth import Frame


def pair(low, high):
    return st.lists(st.integers(low, high), min_size=2, max_size=2, unique=True).map(sorted).map(tuple)


interval_lists = st.lists(pair(0, 12), min_size=1, max_size=4)
boxes = st.tuples(pair(-3, 8), pair(-3, 8)).map(lambda sides: (sides[0][0], sides[1][0], sides[0][1], sides[1][1]))


def cells(intervals):
    return {cell for start, end in intervals for cell in range(start, end)}


def pixels(box):
    return set(product(range(box[0], box[2]), range(box[1], box[3])))


@given(interval_lists, interval_lists)
def test_interval_overlap_counts_unit_cells(a, b):
    both, either = cells(a) & cells(b), cells(a) | cells(b)
    assert (length(a), shared_length(a, b)) == (len(cells(a)), len(both))
    assert interval_iou(a, b) == pytest.approx(len(both) / len(either))
    assert interval_iou(a, b) == interval_iou(b, a)
    assert cells(merge(a)) == cells(a)


@given(pair(0, 12), pair(0, 12))
def test_generalised_iou_by_its_definition(a, b):
    hull = set(range(min(a[0], b[0]), max(a[1], b[1])))
    either = cells([a]) | cells([b])
    expected = interval_iou([a], [b]) - len(hull - either) / len(hull)
    assert interval_giou(a, b) == pytest.approx(expected)
    assert -1 < interval_giou(a, b) <= 1


@given(boxes, boxes)
@pytest.mark.slow
def test_box_overlap_counts_pixels(a, b):
    assert box_iou(a, b) == pytest.approx(len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b)))


@given(boxes)
def test_clipping_keeps_what_is_in_the_frame(box):
    inside = pixels(box) & pixels((0, 0, 5, 4))
    clipped = clip_box(box, 5, 4)
    assert (set() if clipped is None else pixels(tuple(map(int, clipped)))) == inside


def test_clipping_drops_what_lies_past_the_end():
    assert clip_intervals([(1, 3), (4, 9), (5, 9), (7, 8)], 5) == [(1, 3), (4, 5)]


def test_empty_unions_and_hulls_score_nothing():
    assert interval_iou([], []) == interval_iou([(1, 1)], [(1, 1)]) == interval_giou((1, 1), (1, 1)) == 0.0
    assert box_iou((1, 1, 1, 1), (1, 1, 1, 1)) == 0.0


finite = st.floats(0, 1e300, allow_nan=False)


@given(st.lists(st.tuples(finite, finite), max_size=4), st.lists(st.tuples(finite, finite), max_size=4))
def test_no_rounding_lifts_an_overlap_above_one(a, b):
    a, b = ([tuple(sorted(ends)) for ends in part] for part in (a, b))
    assert 0.0 <= interval_iou(a, b) <= 1.0


positive = st.tuples(pair(0, 8), pair(0, 8)).map(lambda sides: (sides[0][0], sides[1][0], sides[0][1], sides[1][1]))


@given(st.lists(positive, min_size=1, max_size=4), st.lists(positive, min_size=1, max_size=4))
@pytest.mark.slow
def test_matching_is_the_best_of_all_assignments(predicted, true):
    small, large = sorted((predicted, true), key=len)
    best = max(sum(map(box_iou, small, chosen)) for chosen in permutations(large, len(small)))
    truth = BoxesTruth(tuple(true), Frame(8, 8))
    assert matched_iou(predicted, truth) == pytest.approx(best / len(large))


@given(st.permutations(range(7)))
def test_kendalls_tau_counts_pairs(order):
    pairs = [(i, j) for i in range(7) for j in range(i)]
    agree = sum((order[i] > order[j]) - (order[i] < order[j]) for i, j in pairs)
    assert kendall_tau(order) == pytest.approx(agree / len(pairs))


def test_the_order_of_one_item_is_refused():
    with pytest.raises(ValueError, match="1 items have no order"):
        kendall_tau([0])
