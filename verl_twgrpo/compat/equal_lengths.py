"""3-D position ids of a batch whose sequences all have one length.

verl stores the (4, length) position ids of a batch as a jagged tensor whose last dimension is ragged. When all lengths
agree, torch takes the dimension of size 4 for the ragged one, and verl, which always declares the last
(``maybe_fix_3d_position_ids`` in verl/utils/tensordict_utils.py), then splits the values along the wrong one.
"""

from __future__ import annotations

from types import ModuleType

import torch
import wrapt

from verl_twgrpo.compat.workaround import Workaround


def fix_equal_lengths(module: ModuleType) -> None:
    """Wrap verl's ``maybe_fix_3d_position_ids`` so that it rebuilds such a tensor first."""
    wrapt.wrap_function_wrapper(module, "maybe_fix_3d_position_ids", _rebuild_then_fix)


def _rebuild_then_fix(wrapped, instance, args, kwargs):
    data = args[0] if args else kwargs["data"]
    if "position_ids" in data:
        position_ids = data["position_ids"]
        if isinstance(position_ids, torch.Tensor) and position_ids.dim() == 3:
            data["position_ids"] = ragged_last(position_ids)
    return wrapped(*args, **kwargs)


def ragged_last(position_ids: torch.Tensor) -> torch.Tensor:
    """[B, 4, length] position ids as a jagged tensor whose last dimension is the ragged one.

    Takes a dense tensor, a jagged one that has its second dimension ragged, or one that is right already.
    """
    if position_ids.is_nested:
        values, offsets = position_ids.values(), position_ids.offsets()
        rows = len(offsets) - 1
        per_row = values.shape[0] // rows
        if values.dim() != 2 or values.shape[0] == per_row == 4 and rows == 1 and offsets[-1] == values.shape[1]:
            return position_ids
        stacked = values.shape[0] == offsets[-1] and bool((offsets.diff() == per_row).all())
        if not stacked:
            return position_ids
        position_ids = values.view(rows, per_row, values.shape[1])
    rows, _, length = position_ids.shape
    offsets = torch.arange(rows + 1, device=position_ids.device) * length
    return torch.nested.nested_tensor_from_jagged(
        position_ids.permute(1, 0, 2).flatten(1), offsets, jagged_dim=2, min_seqlen=length, max_seqlen=length
    )


WORKAROUND = Workaround(
    module="verl.utils.tensordict_utils",
    apply=fix_equal_lengths,
    because="splits the position ids of a batch along the wrong dimension where all its sequences have one length",
    versions="verl==0.9.1",
    link="patches/0005-3d-position-ids.patch",
)
