"""Non-tensor columns of a TensorDict."""

from __future__ import annotations

from typing import Any


def as_list(column: Any) -> list[Any]:
    """One Python object per row; a column comes as a list, a NonTensorStack or a numpy array, as its way here went."""
    return column.tolist() if hasattr(column, "tolist") else list(column)
