"""The head pass where every rank holds some columns of the head: tensor-parallel heads (FSDP with TP, Megatron).

All ranks of the group hold the same hidden states. Logits, probabilities and the mixture stay on the rank that has
their columns; per chunk of tokens three small all-reduces join the shards: the maximum of each token's logits, the sum
of its exponentials, and what is summed over the vocabulary (entropy, the target's logit, the divergence's own sum).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.distributed import ProcessGroup, ReduceOp, all_reduce, get_world_size

from verl_twgrpo.algorithm.divergences import Block, ColumnwiseDivergence, get_divergence, row_lengths
from verl_twgrpo.algorithm.head_pass import (
    BLOCK_BYTES,
    TOKENS_PER_CHUNK,
    GroupDivergence,
    _check_shapes,
    _chunks,
    _position_major,
    _project,
    _spans,
)


@dataclass(frozen=True)
class HeadShard:
    """This rank's rows of the head.

    weight_SH: rows first .. first + S - 1 of the head; rows at and above ``vocabulary_size`` are padding and left out.
    bias_S: their bias, finite. group: the ranks that hold all rows together.
    """

    weight_SH: torch.Tensor
    first: int
    vocabulary_size: int
    bias_S: torch.Tensor | None = None
    group: ProcessGroup | None = None


@torch.no_grad()
def vocabulary_parallel_divergence(
    hidden_NH: torch.Tensor,
    lengths_G: Sequence[int] | torch.Tensor,
    shard: HeadShard,
    temperature: float = 1.0,
    kind: str = "jsd",
    targets_N: torch.Tensor | None = None,
    tokens_per_chunk: int | None = None,
) -> GroupDivergence:
    """What ``chunked_group_divergence`` gives on the whole head; a collective call of all ranks of the shard's group.

    Args: as there. All ranks pass the same hidden states, lengths and targets.

    Returns:
        The same on every rank, float32.

    Raises:
        ValueError: as there, and for a divergence that is no ``ColumnwiseDivergence``.
    """
    divergence = get_divergence(kind)
    if not isinstance(divergence, ColumnwiseDivergence):
        raise ValueError(f"divergence={kind}: it is no ColumnwiseDivergence, so it needs the whole head on one rank")
    if not temperature > 0:
        raise ValueError(f"divergence: temperature is {temperature}, it must be above 0")
    lengths, G, V = row_lengths(lengths_G), len(lengths_G), shard.vocabulary_size
    S = max(min(len(shard.weight_SH), V - shard.first), 0)
    weight_SH = shard.weight_SH[:S]
    bias_S = None if shard.bias_S is None else shard.bias_S[:S].float()
    _check_shapes(hidden_NH, lengths, weight_SH, bias_S, targets_N)
    device = hidden_NH.device
    tokens = tokens_per_chunk or TOKENS_PER_CHUNK.get(device.type, TOKENS_PER_CHUNK["cuda"])

    order = sorted(range(G), key=lambda row: -lengths[row])
    packed_N = _position_major(lengths, order).to(device)
    # of the largest shard, so that all ranks cut alike and meet in as many collectives
    columns = -(-V // get_world_size(shard.group))
    block_tokens = BLOCK_BYTES.get(device.type, BLOCK_BYTES["cuda"]) // (4 * columns)
    spans = list(_spans(lengths, order, max(min(block_tokens, tokens), 1)))
    log_probs_N, entropy_N = (torch.empty(len(packed_N), device=device) for _ in range(2))
    divergence_T = torch.empty(max(lengths), device=device)

    row = 0
    for chunk in _chunks(spans, tokens):
        rows_N = packed_N[row : row + sum(span.tokens for span in chunk)]
        row += len(rows_N)
        z_RS = torch.empty(len(rows_N), S, device=device)
        if S:
            _project(hidden_NH[rows_N], weight_SH, bias_S, temperature, out=z_RS)
        max_R = z_RS.amax(-1) if S else torch.full((len(rows_N),), -torch.inf, device=device)
        all_reduce(max_R, ReduceOp.MAX, group=shard.group)
        p_RS = z_RS.sub_(max_R[:, None]).exp()
        sum_R = p_RS.sum(-1)
        all_reduce(sum_R, group=shard.group)
        p_RS.mul_(sum_R.reciprocal()[:, None])
        log_sum_R = sum_R.log()
        target_R = torch.zeros_like(sum_R) if targets_N is None else _own(z_RS, targets_N[rows_N] - shard.first)
        dot_R = (p_RS * z_RS).sum(-1)

        blocks, first = [], 0
        for span in chunk:
            of, shape = slice(first, first + span.tokens), (span.positions, span.k)
            first = of.stop
            p_PKS = p_RS[of].view(*shape, S)
            mixture_PS = p_PKS.sum(1)
            nothing_PK = torch.empty(shape, device=device)
            blocks.append(
                Block(z_RS[of].view(*shape, S), mixture_PS, p_PKS, log_sum_R[of].view(shape), nothing_PK, G, V)
            )
        # a rank whose rows are all padding has nothing to add, but meets the others in every collective
        sums = [divergence.column_sum(block) if S else max_R.new_zeros(len(block.log_sum_PK)) for block in blocks]
        joined = torch.cat([dot_R, target_R, *sums])
        all_reduce(joined, group=shard.group)
        dot_R, target_R, *sums = joined.split([len(rows_N), len(rows_N), *map(len, sums)])

        entropy_R = log_sum_R - dot_R
        entropy_N[rows_N], log_probs_N[rows_N] = entropy_R, target_R - log_sum_R
        entropies = entropy_R.split([span.tokens for span in chunk])
        for span, block, sum_P, of_span in zip(chunk, blocks, sums, entropies, strict=True):
            block.entropy_PK = of_span.view(span.positions, span.k)
            divergence_T[span.first : span.first + span.positions] = divergence.of_sum(sum_P, block)
    return GroupDivergence(divergence_T, None if targets_N is None else log_probs_N, entropy_N, V)


def _own(z_RS: torch.Tensor, column_R: torch.Tensor) -> torch.Tensor:
    """The logit in a column of this shard, 0 where another rank has the column."""
    S = z_RS.shape[1]
    if not S:
        return torch.zeros(len(column_R), device=z_RS.device)
    is_own_R = (column_R >= 0) & (column_R < S)
    return torch.where(is_own_R, z_RS.gather(1, column_R.clamp(0, S - 1)[:, None])[:, 0], 0.0)
