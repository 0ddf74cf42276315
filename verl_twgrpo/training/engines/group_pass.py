"""Gather a group's rows over micro-batches and run the head pass over it once it is whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.distributed import ProcessGroup, all_reduce, get_rank, get_world_size

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
        kind, temperature, tokens_per_chunk, log_prob_dtype: as in ``chunked_group_divergence``.
        sharing: ranks that all have the same rows, as those of a Ulysses group: each runs a part of the positions.
    """

    def __init__(
        self,
        group_of_row: Sequence[str],
        kind: str,
        temperature: float,
        tokens_per_chunk: int | None = None,
        log_prob_dtype: torch.dtype | None = None,
        sharing: ProcessGroup | None = None,
    ) -> None:
        self._missing = Counter(group_of_row)
        self._waiting: dict[str, list[Row]] = {group: [] for group in self._missing}
        self._settings = {
            "kind": kind,
            "temperature": temperature,
            "tokens_per_chunk": tokens_per_chunk,
            "log_prob_dtype": log_prob_dtype,
        }
        self._sharing = sharing
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
        first, end = self._own_positions(max(lengths_G))
        # which responses have ended at a position does not depend on where the positions are cut
        own = [slice(min(first, length), min(end, length)) for length in lengths_G]
        parts = [of.stop - of.start for of in own]
        joined_3N = head_VH.new_zeros(3, sum(lengths_G), dtype=torch.float32)
        results = joined_3N.split(lengths_G, dim=1)
        if any(parts):
            result = chunked_group_divergence(
                torch.cat([row.hidden_LH[of] for row, of in zip(rows, own, strict=True)]),
                parts,
                head_VH,
                bias_V,
                targets_N=torch.cat([row.targets_L[of] for row, of in zip(rows, own, strict=True)]),
                **self._settings,
            )
            log_probs, entropies = result.log_probs_N.split(parts), result.entropy_N.split(parts)
            for found_3L, of, log_probs_L, entropy_L in zip(results, own, log_probs, entropies, strict=True):
                found_3L[0, of], found_3L[1, of] = log_probs_L, entropy_L
                found_3L[2, of] = result.divergence_T[: of.stop - of.start]
        if self._sharing is not None:
            # all ranks complete their groups in the same order, so the collectives meet
            all_reduce(joined_3N, group=self._sharing)
        for row, found_3L in zip(rows, results, strict=True):
            row.log_probs_L.copy_(found_3L[0])
            row.entropy_L.copy_(found_3L[1])
            row.divergence_L.copy_(found_3L[2])
        self.vocabulary_size = len(head_VH)

    def _own_positions(self, T: int) -> tuple[int, int]:
        """The run of positions that this rank does of T."""
        if self._sharing is None:
            return 0, T
        ranks, rank = get_world_size(self._sharing), get_rank(self._sharing)
        return rank * T // ranks, (rank + 1) * T // ranks
