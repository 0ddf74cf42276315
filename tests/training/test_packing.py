"""Micro-batches of whole groups, within their budgets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from verl_twgrpo.training.engines.packing import Lengths, micro_batches, most_tokens, pack, packed_tokens, split_to

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9)), min_size=1, max_size=20)


def batch(rows):
    """Prompt of group g: g + 3 tokens."""
    return [g for g, _ in rows], Lengths([g + 3 for g, _ in rows], [length for _, length in rows])


def groups_cut(batches, numbers):
    return sum(len({numbers[row] for row in rows}) for rows in batches) - len(set(numbers))


@given(ROWS, st.integers(1, 20))
def test_a_micro_batch_of_rows_holds_no_more_tokens_than_so_many_rows_unpacked(rows, limit):
    numbers, lengths = batch(rows)
    longest = sorted((sum(pair) for pair in zip(lengths.prompts, lengths.responses, strict=True)), reverse=True)
    tokens = most_tokens(lengths, limit)
    assert tokens == sum(longest[:limit])
    batches = micro_batches(numbers, lengths, tokens)
    assert all(packed_tokens(one, numbers, lengths) <= tokens for one in batches)
    if limit >= max(numbers.count(number) for number in numbers):
        assert groups_cut(batches, numbers) == 0


@given(ROWS, st.integers(16, 60))
def test_a_number_of_packed_tokens_is_kept_and_only_larger_groups_are_cut(rows, limit):
    numbers, lengths = batch(rows)
    batches = micro_batches(numbers, lengths, limit)
    assert sorted(row for one in batches for row in one) == list(range(len(rows)))
    # the longest row has 16 tokens
    assert all(packed_tokens(one, numbers, lengths) <= limit for one in batches)
    larger = {
        number
        for number in numbers
        if packed_tokens([r for r, n in enumerate(numbers) if n == number], numbers, lengths) > limit
    }
    for number in set(numbers) - larger:
        assert sum(any(numbers[row] == number for row in one) for one in batches) == 1


@given(ROWS, st.data())
def test_more_micro_batches_cut_between_groups_first(rows, data):
    numbers, lengths = batch(rows)
    count = data.draw(st.integers(1, len(rows)))
    batches = split_to(count, [list(range(len(rows)))], numbers, lengths)
    assert len(batches) == max(count, 1) and all(batches)
    assert sorted(row for one in batches for row in one) == list(range(len(rows)))
    if count <= len(set(numbers)) and all(numbers.count(n) == 1 for n in numbers):
        assert groups_cut(batches, numbers) == 0


def test_the_first_token_of_every_response_is_predicted_by_the_prompts_last():
    packed = pack([0, 1, 0], Lengths([3, 2, 3], [2, 1, 3]), "cpu")
    # rows end to end: 0 1 2 | 3 4, 5 6 | 7, 8 9 10 | 11 12 13
    assert packed.token_S.tolist() == [0, 1, 2, 3, 4, 11, 12, 13, 5, 6, 7]
    assert packed.layout.groups == ((3, (2, 3)), (2, (1,)))
    assert packed.predicts_N.tolist() == [2, 3, 9, 2, 5, 6]
    assert packed.target_N.tolist() == [3, 4, 7, 11, 12, 13]
    assert packed.first_rows == [0, 1]
