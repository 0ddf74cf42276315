"""What several weightings do with a score per token: its top share, its min-max."""

from __future__ import annotations

import math

import torch


def top_share(values_L: torch.Tensor, keep: float) -> torch.Tensor:
    """Which values are at or above their (1 - keep) quantile, bool; ties with it are kept, keep = 1 keeps all.

    The same set as with a linearly interpolated quantile, which torch offers for up to 16 million values only.
    """
    n = len(values_L)
    if not n:
        return torch.ones_like(values_L, dtype=torch.bool)
    # 1e-9: (n - 1) * (1 - keep) of a whole number may come out a hair above it
    place = max(math.ceil((n - 1) * (1 - keep) - 1e-9), 0)
    return values_L >= values_L.kthvalue(place + 1).values


def min_max(values_L: torch.Tensor) -> torch.Tensor:
    """(x - min) / (max - min); 0 where all are equal."""
    low, high = values_L.aminmax()
    return (values_L - low) / torch.where(high > low, high - low, 1.0)
