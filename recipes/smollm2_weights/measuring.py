"""D_t and w_t of a group in all readings, from the model's own distributions.

Position t of a group means position t of all its rows, whatever they say there: that is the method's alignment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from verl_twgrpo.algorithm import chunked_group_divergence, token_weights
from verl_twgrpo.algorithm.divergences import DIVERGENCES

from .sampling import Sample
from .statistics import live_rows

KINDS = DIVERGENCES.names()
NAMES = {"jsd": "paper (Eq. 4)", "released": "released code", "live": "live"}
ALPHA = 0.7
# Positions of which logits of all rows are held at once: 8 x 16 x 49,152 x 4 bytes = 24 MiB.
SLICE = 16


@torch.no_grad()
def hidden_states(model: Any, one: Sample) -> torch.Tensor:
    """Final hidden states [N, H] of the positions that predict the response tokens, row after row.

    The prompt runs once: its keys and values serve all rows.
    """
    prompt = model.model(torch.tensor([one.prompt]), use_cache=True)
    last, cache = prompt.last_hidden_state[0, -1:], prompt.past_key_values
    parts = []
    for row in one.responses:
        parts.append(last)
        if len(row) > 1:
            parts.append(model.model(torch.tensor([row[:-1]]), past_key_values=cache).last_hidden_state[0])
            cache.crop(len(one.prompt))
    return torch.cat(parts)


@dataclass
class Weighted:
    """A group with D_t and w_t by reading, [T] each; entropy and log-prob of its tokens, a list a row."""

    sample: Sample
    divergence: dict[str, np.ndarray]
    weight: dict[str, np.ndarray]
    entropy: list[np.ndarray]
    log_prob: list[np.ndarray]

    @property
    def live_T(self) -> np.ndarray:
        return live_rows(self.sample.lengths)


def weigh(one: Sample, hidden_NH: torch.Tensor, head_VH: torch.Tensor) -> Weighted:
    """D_t, w_t, entropies and log-probs of a group in all readings, from one head pass each, as training takes them."""
    targets_N = torch.tensor([token for row in one.responses for token in row])
    divergence, weight = {}, {}
    for kind in KINDS:
        passed = chunked_group_divergence(hidden_NH, one.lengths, head_VH, kind=kind, targets_N=targets_N)
        divergence[kind] = passed.divergence_T.numpy()
        weight[kind] = weights_of(passed.divergence_T, one.lengths, kind, passed.vocabulary_size)
    ends = np.cumsum(one.lengths)[:-1]
    return Weighted(
        one,
        divergence,
        weight,
        np.split(passed.entropy_N.numpy(), ends),
        np.split(passed.log_probs_N.numpy(), ends),
    )


def weights_of(divergence_T: torch.Tensor, lengths: Sequence[int], kind: str, vocabulary: int) -> np.ndarray:
    """w_t = 1 + alpha n_t."""
    return token_weights(divergence_T, lengths, alpha=ALPHA, kind=kind, vocabulary_size=vocabulary).numpy()


def mean_entropy(group: Weighted) -> np.ndarray:
    """Mean next-token entropy of the live rows by position, nats."""
    total = np.zeros(len(group.live_T))
    for row in group.entropy:
        total[: len(row)] += row
    return total / group.live_T


def logit_slices(
    hidden_NH: torch.Tensor, lengths: Sequence[int], head_VH: torch.Tensor
) -> Iterator[tuple[int, list[int], torch.Tensor]]:
    """(first position, lengths from there on within the slice, logits_GSV in float32) over a group; padding is 0."""
    padded_GTH = torch.nn.utils.rnn.pad_sequence(hidden_NH.split(list(lengths)), batch_first=True)
    for first in range(0, max(lengths), SLICE):
        part_GSH = padded_GTH[:, first : first + SLICE]
        inside = [min(max(length - first, 0), part_GSH.shape[1]) for length in lengths]
        yield first, inside, part_GSH.float() @ head_VH.float().t()
