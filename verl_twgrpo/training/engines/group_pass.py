"""Gather a group's rows over micro-batches and run the head pass over it once it is whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from verl_twgrpo.algorithm import chunked_group_divergence
from verl_twgrpo.training.engines.stopwatch import Stopwatch


@dataclass
class Row:
    """One response: what the head reads and where its results go.

    hidden_LH: final hidden states of the positions that predict the L response tokens. targets_L: those tokens.
    log_probs_L, entropy_L, divergence_L: views of the micro-batch's result buffers, filled in place.
    """

    hidden_LH: torch.Tensor
    targets_L: torch.Tensor
    log_probs_L: torch.Tensor
    entropy_L: torch.Tensor
    divergence_L: torch.Tensor


class GroupPass:
    """The head pass of one old-log-prob step on one rank.

    Micro-batches may cut groups anywhere and bring rows in any order: a group's hidden states wait (2 bytes x G x L x H
    in bfloat16) until its last row is there, and then go through the head in one pass.

    Args:
        group_of_row: the group id of every row of this rank's batch, padding rows left out.
        kind, temperature, rows_per_chunk, log_prob_dtype: as in ``chunked_group_divergence``.
    """

    def __init__(
        self,
        group_of_row: Sequence[str],
        kind: str,
        temperature: float,
        rows_per_chunk: int | None = None,
        log_prob_dtype: torch.dtype | None = None,
    ) -> None:
        self._missing = Counter(group_of_row)
        self._waiting: dict[str, list[Row]] = {group: [] for group in self._missing}
        self._settings = {
            "kind": kind,
            "temperature": temperature,
            "rows_per_chunk": rows_per_chunk,
            "log_prob_dtype": log_prob_dtype,
        }
        self._stopwatch = Stopwatch()
        self.vocabulary_size = 0

    @property
    def seconds(self) -> float:
        """Time of the head passes so far, on the device."""
        return self._stopwatch.seconds

    def add(self, group: str, row: Row, head_VH: torch.Tensor, bias_V: torch.Tensor | None) -> None:
        """Take one row; if it completes its group, run the pass with the head, which is unsharded just now.

        Raises:
            ValueError: more rows of the group than announced.
        """
        if self._missing[group] == 0:
            raise ValueError(f"tw_grpo: group {group} has more rows than the batch announced")
        self._waiting[group].append(row)
        self._missing[group] -= 1
        if self._missing[group] == 0:
            self._run(self._waiting.pop(group), head_VH, bias_V)

    def finish(self) -> None:
        """Raises ``RuntimeError`` naming the groups whose rows did not all come."""
        if self._waiting:
            missing = ", ".join(f"{group} ({self._missing[group]} rows)" for group in self._waiting)
            raise RuntimeError(f"tw_grpo: rows missing after the last micro-batch: {missing}")

    def _run(self, rows: list[Row], head_VH: torch.Tensor, bias_V: torch.Tensor | None) -> None:
        with self._stopwatch.running(head_VH.device):
            self._divergence(rows, head_VH, bias_V)

    def _divergence(self, rows: list[Row], head_VH: torch.Tensor, bias_V: torch.Tensor | None) -> None:
        lengths_G = [len(row.targets_L) for row in rows]
        result = chunked_group_divergence(
            torch.cat([row.hidden_LH for row in rows]),
            lengths_G,
            head_VH,
            bias_V,
            targets_N=torch.cat([row.targets_L for row in rows]),
            **self._settings,
        )
        log_probs = result.log_probs_N.split(lengths_G)
        entropies = result.entropy_N.split(lengths_G)
        for row, length, log_probs_L, entropy_L in zip(rows, lengths_G, log_probs, entropies, strict=True):
            row.log_probs_L.copy_(log_probs_L)
            row.entropy_L.copy_(entropy_L)
            row.divergence_L.copy_(result.divergence_T[:length])
        self.vocabulary_size = result.vocabulary_size
