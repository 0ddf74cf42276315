"""The gradient that would flow through the weights if they were not held fixed."""

from __future__ import annotations

import math

import numpy as np
import torch
from smol_measuring import ALPHA, Weighted, logit_slices

from verl_twgrpo.algorithm import group_divergence


def gradient_leak(
    group: Weighted, hidden_NH: torch.Tensor, head_VH: torch.Tensor, kind: str, advantages_G: np.ndarray
) -> tuple[float, float]:
    """Norm of the gradient through w over that of the gradient with w held fixed, towards the logits, on-policy.

    The objective is sum_it A_i w_t r_it with r = 1. Through w_t = 1 + alpha (D_t - D_min) / (D_max - D_min) every
    position t gets (c_t - [t = argmax] sum_s c_s n_s) alpha / (D_max - D_min) dD_t, c_t the sum of A_i over the rows
    live at t: nothing where all rows are live, but for the position of the maximum. D_min is position 0's, where
    dD = 0. Returns (leak over all positions / fixed part, leak over fully live positions / fixed part).
    """
    lengths, divergence_T = group.sample.lengths, group.divergence[kind]
    span = float(np.ptp(divergence_T))
    n_T = (divergence_T - divergence_T.min()) / span
    live_GT = np.arange(max(lengths)) < np.asarray(lengths)[:, None]
    c_T = (advantages_G[:, None] * live_GT).sum(0)
    through_T = c_T.copy()
    through_T[divergence_T.argmax()] -= (c_T * n_T).sum()
    through_T *= ALPHA / span
    leak_T, fixed_T = np.zeros(len(n_T)), np.zeros(len(n_T))
    weight_T = 1 + ALPHA * n_T
    for first, inside, logits_GSV in logit_slices(hidden_NH, lengths, head_VH):
        logits_GSV.requires_grad_(True)
        log_probs_GSV = logits_GSV.log_softmax(-1)
        (gradient_GSV,) = torch.autograd.grad(group_divergence(log_probs_GSV, inside, kind).sum(), logits_GSV)
        probs_GSV = log_probs_GSV.detach().exp()
        where = slice(first, first + probs_GSV.shape[1])
        leak_T[where] = gradient_GSV.pow(2).sum((0, 2)).numpy() * through_T[where] ** 2
        for row, response in enumerate(group.sample.responses):
            tokens = torch.tensor(response[where])
            p_SV = probs_GSV[row, : len(tokens)]
            chosen = p_SV.gather(1, tokens[:, None])[:, 0]
            # |onehot - p|^2
            norm = (p_SV.pow(2).sum(-1) + 1 - 2 * chosen).numpy()
            stop = first + len(tokens)
            fixed_T[first:stop] += (advantages_G[row] * weight_T[first:stop]) ** 2 * norm
    fixed = math.sqrt(fixed_T.sum())
    return math.sqrt(leak_T.sum()) / fixed, math.sqrt(leak_T[live_GT.all(0)].sum()) / fixed
