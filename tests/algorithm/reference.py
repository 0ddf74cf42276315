"""The paper's equations and the released code's arithmetic, in float64 and one position at a time, to test against.

Written from the text, with loops, and sharing nothing with the package.
"""

from __future__ import annotations

import math

import torch

# One group: for each row a [length, V] tensor of float64 log-probs. Masked columns are left out of V beforehand.
Rows = list[torch.Tensor]


def rows_at(rows: Rows, t: int) -> tuple[list[torch.Tensor], int]:
    """Log-probs [V] of the rows that are live at position t, and how many have ended."""
    live = [row[t] for row in rows if len(row) > t]
    return live, len(rows) - len(live)


def entropy(p: torch.Tensor) -> float:
    return -sum(x * math.log(x) for x in p.tolist() if x > 0)


def kl(log_p: torch.Tensor, q: torch.Tensor) -> float:
    p = log_p.exp()
    some = p > 0
    return float((p[some] * (log_p[some] - q[some].log())).sum())


def paper_divergence(rows: Rows) -> list[float]:
    """Eq. 4: D_t = sum_i KL(p_it || E[o_t]), the expected distribution with ended rows uniform."""
    divergences = []
    for t in range(max(len(row) for row in rows)):
        live, ended = rows_at(rows, t)
        V = len(live[0])
        filled = live + [torch.full((V,), -math.log(V), dtype=torch.float64)] * ended
        mixture = torch.stack([row.exp() for row in filled]).mean(0)
        divergences.append(sum(kl(row, mixture) for row in filled))
    return divergences


def live_divergence(rows: Rows) -> list[float]:
    """sum over live rows of KL to the mixture of live rows, over its bound k ln k; 0 for one row."""
    divergences = []
    for t in range(max(len(row) for row in rows)):
        live, _ = rows_at(rows, t)
        mixture = torch.stack([row.exp() for row in live]).mean(0)
        k = len(live)
        divergences.append(sum(kl(row, mixture) for row in live) / (k * math.log(k)) if k > 1 else 0.0)
    return divergences


def released_divergence(rows: Rows) -> list[float]:
    """mean_i sum_v (exp(d) - d - 1), d = clamp(mean_j z_j - z_i, -11, 11) over log-probs z, ended rows -ln V."""
    divergences = []
    for t in range(max(len(row) for row in rows)):
        live, ended = rows_at(rows, t)
        V = len(live[0])
        z = torch.stack(live + [torch.full((V,), -math.log(V), dtype=torch.float64)] * ended)
        d = torch.clamp(z.mean(0) - z, -11, 11)
        divergences.append(float((torch.exp(d) - d - 1).sum(-1).mean()))
    return divergences


DIVERGENCES = {"jsd": paper_divergence, "live": live_divergence, "released": released_divergence}


def eq5_weights(divergences: list[float], alpha: float) -> list[float]:
    """Eq. 5 as printed."""
    low, high = min(divergences), max(divergences)
    return [(1 + alpha) * (d - low) / (high - low) for d in divergences]


def released_weights(divergences: list[float], a: float = 1.70) -> list[float]:
    """1 + (a - 1) n with n = (D - min) / (max - min + 1e-8)."""
    low, high = min(divergences), max(divergences)
    return [1 + (a - 1) * (d - low) / (high - low + 1e-8) for d in divergences]


def clip(ratio: float, low: float, high: float) -> float:
    return max(1 - low, min(1 + high, ratio))


def eq6_loss(
    ratios: list[list[float]], advantages: list[float], weights: list[float], low: float, high: float
) -> float:
    """Minus Eq. 6 for one group: rows of ratios, one advantage per row, one weight per position."""
    total = sum(
        min(weights[t] * r * A, clip(r, low, high) * A)
        for row, A in zip(ratios, advantages, strict=True)
        for t, r in enumerate(row)
    )
    return -total / sum(len(row) for row in ratios)


def outside_loss(
    ratios: list[list[float]], advantages: list[float], weights: list[float], low: float, high: float
) -> float:
    """Minus the released objective for one group: w_t min(r A, clip(r) A), over all tokens."""
    total = sum(
        weights[t] * min(r * A, clip(r, low, high) * A)
        for row, A in zip(ratios, advantages, strict=True)
        for t, r in enumerate(row)
    )
    return -total / sum(len(row) for row in ratios)


def eq1_advantages(rewards: list[float], eps: float) -> list[float]:
    """(R - mean) / (std + eps) of one group, std over n - 1."""
    n = len(rewards)
    mean = sum(rewards) / n
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (n - 1))
    return [(r - mean) / (std + eps) for r in rewards]
