"""Groups stay whole on a rank, whatever failed rollouts left of them."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_twgrpo.training.balance import check_groups_whole, order_rows, partition_groups


@st.composite
def batches(draw):
    """Rows of up to 12 groups of at most n rows, padded to what verl asks for, in any order."""
    n = draw(st.integers(2, 8))
    ranks = draw(st.sampled_from([1, 2, 4]))
    sizes = draw(st.lists(st.integers(1, n), min_size=1, max_size=12))
    groups = [f"g{g}" for g, size in enumerate(sizes) for _ in range(size)]
    rows = groups + [None] * (-len(groups) % (n * ranks))
    rows = draw(st.permutations(rows))
    workloads = draw(st.lists(st.integers(1, 10_000), min_size=len(rows), max_size=len(rows)))
    return rows, workloads, ranks


@given(batches())
@pytest.mark.slow
def test_every_row_is_placed_once_and_every_group_on_one_rank(batch):
    rows, workloads, ranks = batch
    ordered = order_rows(rows, workloads, ranks)
    if ordered is None:  # then more padding must make room, as the trainer adds it
        rows = rows + [None] * (ranks * max(Counter(filter(None, rows)).values()) * len(rows))
        ordered = order_rows(rows, workloads + [1] * (len(rows) - len(workloads)), ranks)
    order, by_rank = ordered
    assert sorted(order) == list(range(len(rows)))
    assert [row for part in by_rank for row in part] == order
    assert {len(part) for part in by_rank} == {len(rows) // ranks}
    check_groups_whole([rows[row] for row in order], ranks)
    for part in by_rank:  # and the rows of a group are neighbours
        uids = [rows[row] for row in part if rows[row] is not None]
        assert len([k for k in range(len(uids)) if k == 0 or uids[k] != uids[k - 1]]) == len(set(uids))


@given(batches(), st.integers(1, 4))
@pytest.mark.slow
def test_padding_is_spread_over_the_steps_of_a_rank(batch, steps):
    """verl cuts each rank's rows into mini-batches in their order; none is left with padding alone if it can be."""
    rows, workloads, ranks = batch
    rows = rows + [None] * (-len(rows) % (ranks * steps))
    workloads = workloads + [1] * (len(rows) - len(workloads))
    per_rank = len(rows) // ranks
    ordered = order_rows(rows, workloads, ranks, per_rank // steps)
    if ordered is None:
        return
    order, by_rank = ordered
    assert sorted(order) == list(range(len(rows)))
    check_groups_whole([rows[row] for row in order], ranks)
    for part in by_rank:
        mini_batches = [part[k : k + per_rank // steps] for k in range(0, per_rank, per_rank // steps)]
        counts = [sum(rows[row] is not None for row in mini_batch) for mini_batch in mini_batches]
        assert max(counts) - min(counts) <= 1
        real = [rows[row] for row in part if rows[row] is not None]
        assert len([k for k in range(len(real)) if k == 0 or real[k] != real[k - 1]]) == len(set(real))


def test_groups_of_5_5_5_and_8_on_two_ranks_make_no_step_of_one_response():
    """verl pads 23 rows to 24 in mini-batches of 8; groups stay whole in 32 only: four steps of four rows per rank."""
    rows = ["a"] * 5 + ["b"] * 5 + ["c"] * 5 + ["d"] * 8
    assert order_rows(rows + [None], [1] * 24, 2, 4) is None
    order, by_rank = order_rows(rows + [None] * 9, [1] * 32, 2, 4)
    padded = rows + [None] * 9
    of_step = [sum(padded[row] is not None for part in by_rank for row in part[k : k + 4]) for k in range(0, 16, 4)]
    assert sum(of_step) == 23 and min(of_step) >= 5


def test_tokens_are_balanced_across_ranks():
    sizes, workloads = [8] * 6, [100, 90, 60, 50, 20, 10]
    parts = partition_groups(sizes, workloads, ranks=2, rows_per_rank=24)
    loads = [sum(workloads[group] for group in part) for part in parts]
    assert [len(part) for part in parts] == [3, 3]
    assert max(loads) - min(loads) <= 10


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([2, 2, 2, 2], id="equal groups, by verl's partition"),
        pytest.param([2, 2, 2, 2, 1], id="groups that failed rollouts left unequal, by ours"),
    ],
)
def test_rows_of_unequal_workloads_give_two_ranks_equal_loads(sizes):
    """Wherever the two heavy groups stand: what does not look at loads puts them on one rank in some order."""
    for costs in permutations([100, 90, 10, 1]):
        groups = [f"g{k}" for k, size in enumerate(sizes) for _ in range(size)]
        workloads = [(*costs, 1)[k] for k, size in enumerate(sizes) for _ in range(size)]
        padding = 12 - len(groups)  # rows that failed rollouts left to verl's padding
        _, by_rank = order_rows(groups + [None] * padding, workloads + [0] * padding, ranks=2)
        loads = [sum((workloads + [0] * padding)[row] for row in rows) for rows in by_rank]
        assert min(loads) >= 2 * 90 and max(loads) <= 2 * 101 + 1


def test_one_rank_keeps_the_order_of_prompts():
    order, _ = order_rows(["a", "b", "a", "b"], [5, 1, 5, 1], ranks=1)
    assert order == [0, 2, 1, 3]


def test_no_place_for_a_group_is_no_order():
    assert order_rows(["a"] * 5 + ["b"] * 5 + ["c"] * 5 + [None], [1] * 16, ranks=2) is None


def test_a_group_that_spans_ranks_is_refused_by_name():
    with pytest.raises(ValueError, match="group b spans data-parallel ranks 0 and 1"):
        check_groups_whole(["a", "b", "b", "c"], ranks=2)
