"""T-GRPO's bonus against its definition, response by response."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verl_twgrpo.algorithm.temporal_bonus import TemporalBonus

ACCURACY = st.sampled_from([0.0, 0.05, 0.1, 1 / 3, 0.5, 1.0])


def by_the_definition(ordered, shuffled, lengths, mu=0.8, length_bonus=0.0):
    p = sum(ordered) / len(ordered)
    paid = []
    for accuracy, length in zip(ordered, lengths, strict=True):
        right = accuracy > 0.1
        bonus = 0.3 if right and shuffled and p >= mu * (sum(shuffled) / len(shuffled)) - 1e-9 else 0.0
        several = sum(one > 0.1 for one in ordered) > 1
        paid.append(bonus + (length_bonus if right and several and 320 <= length <= 512 else 0.0))
    return paid


@given(
    st.lists(st.tuples(ACCURACY, st.integers(300, 530)), min_size=1, max_size=12),
    st.lists(ACCURACY, max_size=6),
    st.sampled_from([0.0, 0.8, 1.0]),
    st.sampled_from([0.0, 0.2]),
)
def test_the_bonus_is_its_definition(responses, shuffled, mu, length_bonus):
    ordered, lengths = zip(*responses, strict=True)
    p, other = sum(ordered) / len(ordered), mu * sum(shuffled) / max(len(shuffled), 1)
    if abs(p - other) < 1e-6 and p != other:
        return  # equal but for rounding, and either answer is right
    paid = TemporalBonus(mu=mu, length_bonus=length_bonus).of_group(
        torch.tensor(ordered), torch.tensor(shuffled), torch.tensor(lengths)
    )
    assert paid.tolist() == pytest.approx(by_the_definition(ordered, shuffled, lengths, mu, length_bonus))


@pytest.mark.parametrize(
    ("ordered", "shuffled", "paid"),
    [
        ([1.0, 0.0, 1.0, 0.0], [1.0, 0.0], [0.3, 0.0, 0.3, 0.0]),  # p = p~
        ([1.0, 0.0, 0.0, 0.0], [1.0, 1.0], [0.0] * 4),  # .25 < .8
        ([0.0, 0.0], [0.0], [0.0, 0.0]),  # passes the test, and nobody is right
        ([1.0, 1.0], [], [0.0, 0.0]),  # no video
    ],
)
def test_by_hand(ordered, shuffled, paid):
    made = TemporalBonus().of_group(torch.tensor(ordered), torch.tensor(shuffled), torch.full((len(ordered),), 400))
    assert made.tolist() == pytest.approx(paid)


@pytest.mark.parametrize(("group_size", "share", "responses"), [(8, 0.5, 4), (5, 0.5, 2), (1, 0.5, 0), (8, 0.0, 0)])
def test_half_as_many_responses_see_shuffled_frames(group_size, share, responses):
    assert TemporalBonus(shuffled=share).responses(group_size) == responses


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mu": -1}, "mu=-1"),
        ({"shuffled": 1.5}, "shuffled=1.5"),
        ({"score": ""}, "score=''"),
        ({"length_window": [320]}, r"length_window=\[320\]: need \[shortest, longest\]"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TemporalBonus(**settings)
