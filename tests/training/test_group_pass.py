"""Rows wait for their group."""

from __future__ import annotations

import pytest
import torch

from verl_twgrpo.algorithm import chunked_group_divergence
from verl_twgrpo.training.engines.group_pass import GroupPass, Row


def row(length, seed):
    generator = torch.Generator().manual_seed(seed)
    results = [torch.full((length,), torch.nan) for _ in range(3)]
    return Row(torch.randn(length, 4, generator=generator), torch.arange(length) % 9, *results)


@pytest.fixture
def head():
    return torch.randn(9, 4, generator=torch.Generator().manual_seed(9))


def test_a_group_is_computed_with_its_last_row_and_written_in_place(head):
    rows = [row(3, 1), row(5, 2), row(2, 3)]
    work = GroupPass(["a", "b", "a", "a"], "jsd", temperature=1.0)
    for one in rows[:2]:
        work.add("a", one, head, None)
    assert rows[0].divergence_L.isnan().all()
    work.add("a", rows[2], head, None)
    expected = chunked_group_divergence(
        torch.cat([r.hidden_LH for r in rows]), [3, 5, 2], head, targets_N=torch.cat([r.targets_L for r in rows])
    )
    torch.testing.assert_close(rows[1].divergence_L, expected.divergence_T)
    torch.testing.assert_close(torch.cat([r.log_probs_L for r in rows]), expected.log_probs_N)
    torch.testing.assert_close(torch.cat([r.entropy_L for r in rows]), expected.entropy_N)
    assert work.vocabulary_size == 9
    assert work.seconds > 0


def test_missing_rows_are_named(head):
    work = GroupPass(["a", "a", "b"], "jsd", temperature=1.0)
    work.add("b", row(2, 1), head, None)
    work.add("a", row(2, 1), head, None)
    with pytest.raises(RuntimeError, match=r"a \(1 rows\)"):
        work.finish()


def test_a_row_too_many_is_refused(head):
    work = GroupPass(["a"], "jsd", temperature=1.0)
    work.add("a", row(2, 1), head, None)
    with pytest.raises(ValueError, match="group a has more rows"):
        work.add("a", row(2, 1), head, None)
