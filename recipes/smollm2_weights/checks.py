"""What number formats, float noise and a gradient through the weights would do to D_t and w_t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from verl_twgrpo.algorithm import chunked_group_divergence, group_divergence

from .measuring import ALPHA, KINDS, Weighted, logit_slices, weights_of
from .sampling import GROUP_SIZE, Sample


def rounded_divergences(
    hidden_NH: torch.Tensor, lengths: Sequence[int], head_VH: torch.Tensor
) -> dict[tuple[str, str], torch.Tensor]:
    """D_t by (what was rounded to bfloat16: logits or log-probs, reading). Log-probs are not normalised again."""
    parts: dict[tuple[str, str], list[torch.Tensor]] = {}
    for _, inside, logits_GSV in logit_slices(hidden_NH, lengths, head_VH):
        rounded = {
            "logits": logits_GSV.bfloat16().float().log_softmax(-1),
            "log-probs": logits_GSV.log_softmax(-1).bfloat16().float(),
        }
        for what, log_probs_GSV in rounded.items():
            for kind in KINDS:
                parts.setdefault((what, kind), []).append(group_divergence(log_probs_GSV, inside, kind))
    return {key: torch.cat(slices) for key, slices in parts.items()}


def compare(exact_T: np.ndarray, other_T: np.ndarray, exact_w: np.ndarray, other_w: np.ndarray) -> dict[str, float]:
    """Error of D_t (relative: after position 0, where D_t is 0) and of w_t."""
    relative = np.abs(other_T[1:] - exact_T[1:])[exact_T[1:] > 0] / exact_T[1:][exact_T[1:] > 0]
    return {
        "divergence_relative_median": float(np.median(relative)) if len(relative) else math.nan,
        "divergence_relative_max": float(relative.max()) if len(relative) else math.nan,
        "divergence_shift_median": float(np.median(other_T[1:] - exact_T[1:])) if len(exact_T) > 1 else math.nan,
        "divergence_error_max": float(np.abs(other_T - exact_T).max()),
        "divergence_at_0": float(other_T[0]),
        "weight_error_max": float(np.abs(other_w - exact_w).max()),
    }


def dtype_lines(group: Weighted, hidden: torch.Tensor, head: torch.Tensor, half: torch.Tensor) -> list[dict]:
    """``compare`` of one group in four settings; ``half``: hidden states of the model in bfloat16."""
    lengths = group.sample.lengths
    of_half, of_whole = (rounded_divergences(states, lengths, head.to(states.dtype)) for states in (half, hidden))
    lines = []
    for kind in KINDS:
        trained = chunked_group_divergence(half, lengths, head.to(half.dtype), kind=kind)
        settings = {
            "bf16 model, fp32 logits (training)": trained.divergence_T,
            "bf16 model, bf16 logits": of_half["logits", kind],
            "fp32 model, bf16 logits": of_whole["logits", kind],
            "fp32 model, bf16 log-probs": of_whole["log-probs", kind],
        }
        for name, divergence_T in settings.items():
            weights = weights_of(divergence_T, lengths, kind, len(head))
            errors = compare(group.divergence[kind], divergence_T.numpy(), group.weight[kind], weights)
            lines.append({"setting": name, "reading": kind, "id": group.sample.id, **errors})
    return sorted(lines, key=lambda line: list(settings).index(line["setting"]))


def dtype_table(lines: Sequence[dict]) -> list[dict]:
    """By setting and reading: medians over groups, maxima over groups for what ends in max."""
    table = []
    for setting, kind in dict.fromkeys((line["setting"], line["reading"]) for line in lines):
        part = [line for line in lines if (line["setting"], line["reading"]) == (setting, kind)]
        table.append({"setting": setting, "reading": kind, "groups": len(part)})
        for name in [name for name in part[0] if name not in ("setting", "reading", "id")]:
            table[-1][name] = float((np.max if name.endswith("max") else np.median)([line[name] for line in part]))
    return table


@torch.no_grad()
def noise_of_identical_rows(model: Any, one: Sample) -> float:
    """Range of D_t (Eq. 4) over the positions of GROUP_SIZE copies of one response, padded differently.

    Copies differ only by float noise, as rows do that lie elsewhere in a batch. Nats.
    """
    row = max(one.responses, key=len)
    ids = one.prompt + row[:-1]
    padded = torch.tensor([[0] * k + ids + [0] * (GROUP_SIZE - 1 - k) for k in range(GROUP_SIZE)])
    mask = torch.tensor([[0] * k + [1] * len(ids) + [0] * (GROUP_SIZE - 1 - k) for k in range(GROUP_SIZE)])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    hidden = model.model(padded, attention_mask=mask, position_ids=positions).last_hidden_state
    start = len(one.prompt) - 1
    copies = torch.cat([hidden[k, k + start : k + start + len(row)] for k in range(GROUP_SIZE)])
    divergence_T = chunked_group_divergence(copies, [len(row)] * GROUP_SIZE, model.lm_head.weight).divergence_T
    return float(divergence_T.max() - divergence_T.min())


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
