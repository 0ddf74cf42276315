"""Position ids of a batch whose sequences have one length."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from verl_twgrpo.compat.equal_lengths import ragged_last


def positions(lengths):
    return [torch.arange(n).expand(4, -1) + 10 * k for k, n in enumerate(lengths)]


def as_verl_stores_them(lengths):
    """Stacked where all lengths agree, jagged otherwise (verl/utils/tensordict_utils.py)."""
    return tu.list_of_dict_to_tensordict([{"position_ids": p} for p in positions(lengths)])


@pytest.mark.parametrize("lengths", [[5, 5, 5], [5, 7, 3], [4, 4], [4], [6]])
def test_rows_keep_their_position_ids(lengths):
    data = as_verl_stores_them(lengths)
    # on its way through the queue a batch becomes a jagged tensor again, row by row
    rows = [row for row in (data["position_ids"].unbind() if len(set(lengths)) == 1 else positions(lengths))]
    data = TensorDict({"position_ids": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}, len(lengths))
    tu.maybe_fix_3d_position_ids(data)
    picked = tu.index_select_tensor_dict(data, torch.arange(len(lengths) - 1, -1, -1))
    for row, expected in zip(picked["position_ids"].unbind(), reversed(positions(lengths)), strict=True):
        assert torch.equal(row, expected)


@pytest.mark.upstream_bug
def test_verl_splits_them_along_the_wrong_dimension():
    data = TensorDict({"position_ids": torch.nested.as_nested_tensor(positions([5, 5, 5]), layout=torch.jagged)}, 3)
    tu.maybe_fix_3d_position_ids.__wrapped__(data)
    with pytest.raises(RuntimeError):
        tu.index_select_tensor_dict(data, torch.arange(3))


def test_a_dense_tensor_becomes_jagged():
    dense = torch.stack(positions([6, 6]))
    for row, expected in zip(ragged_last(dense).unbind(), positions([6, 6]), strict=True):
        assert torch.equal(row, expected)
