"""A group's divergence, log-probs and entropies from one pass through the language-model head.

The mixture at a position needs only the rows of that position. So the packed hidden states are walked position by
position, all live rows of a position together, ``rows_per_chunk`` rows at a time: logits of a chunk, everything that is
wanted from them, and the buffer is used again. No [G, T, V] tensor exists.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from verl_twgrpo.algorithm.divergence import MASKED, RELEASED_CLAMP, DivergenceKind, check_kind, row_lengths

# Rows of one head GEMM. A chunk streams the whole head (V*H weights) for 2*rows*V*H flops, that is rows / 2 flops per
# byte of float32 weights or rows of bfloat16 ones. Two CPU cores do about 200 Gflop/s over 20 GB/s: from 20 rows on
# they compute rather than wait, and packing the weights inside the GEMM fades by 256 rows (measured: at 64 rows a row
# costs 1.4 times as much). An H200 does 990 Tflop/s over 4.8 TB/s: 206 rows, and 512 leave room for the rest of a
# launch. The logits of a chunk take rows * V * 4 bytes: 256 * 32768 -> 32 MiB, 512 * 152064 -> 297 MiB.
ROWS_PER_CHUNK = {"cpu": 256, "cuda": 512}

# A chunk's logits are reduced in blocks of this many bytes (but whole positions). About ten elementwise passes go over
# a block and over its probabilities, which take as much again. CPU: both stay in the second-level caches of two cores,
# 2 MiB each (measured: 2.1 GEMM times in all with blocks of 8 MiB, 1.9 with 2 MiB). GPU: long enough to hide the
# launches, 10 us of a pass against 5 us.
BLOCK_BYTES = {"cpu": 2**21, "cuda": 2**26}

# Weights turned into float32 at a time where the device has no GEMM of bfloat16 into float32, as a CPU (32 MiB). The
# product of two bfloat16 numbers is exact in float32, so nothing is lost but the time of the conversion.
UPCAST_WEIGHTS = 2**23


@dataclass
class GroupDivergence:
    """What one head pass over a group gives; all float32, on the device of the hidden states.

    divergence_T: by position, T the longest row. log_probs_N: of the target tokens (None without targets). entropy_N,
    logsumexp_N: of the logits over temperature, in nats. N: packed live tokens, row after row. vocabulary_size: columns
    that are not masked.
    """

    divergence_T: torch.Tensor
    log_probs_N: torch.Tensor | None
    entropy_N: torch.Tensor
    logsumexp_N: torch.Tensor
    vocabulary_size: int


@dataclass(frozen=True)
class _Span:
    """Positions first .. first + positions - 1, at all of which the same k rows are live."""

    first: int
    positions: int
    k: int

    @property
    def rows(self) -> int:
        return self.positions * self.k


@dataclass(frozen=True)
class _Vocabulary:
    """The columns that count: how many, and 1.0 or 0.0 by column (None where all do)."""

    size: int
    keep_V: torch.Tensor | None


@torch.no_grad()
def chunked_group_divergence(
    hidden_NH: torch.Tensor,
    lengths_G: Sequence[int] | torch.Tensor,
    head_VH: torch.Tensor,
    bias_V: torch.Tensor | None = None,
    temperature: float = 1.0,
    kind: DivergenceKind = "jsd",
    targets_N: torch.Tensor | None = None,
    rows_per_chunk: int | None = None,
    log_prob_dtype: torch.dtype | None = None,
) -> GroupDivergence:
    """Divergence by position, and log-prob and entropy by token, of one group; the values of ``group_divergence``.

    Accumulates and keeps logits in float32 whatever the inputs are: log-sum-exps of logits rounded to bfloat16 shift
    the divergence by 0.4. Not differentiable. Extra memory whatever T is: logits of max(rows_per_chunk, G) rows,
    and probabilities and mixture of a block of them, that is at most 3 * max(rows_per_chunk, G) * V * 4 bytes.

    Args:
        hidden_NH: final hidden states of the positions that predict the N response tokens, row after row.
        lengths_G: tokens in each row, 0 allowed; they sum to N.
        head_VH: weight of the head, a plain tensor (unshard it first). On a GPU, bfloat16 hidden states with a bfloat16
            head run on the tensor cores; a float32 head runs as a float32 GEMM.
        bias_V: bias of the head; -inf takes a column out of the vocabulary.
        temperature: logits are divided by it.
        kind: as in ``group_divergence``.
        targets_N: the response tokens, int64.
        rows_per_chunk: rows of one head GEMM.
        log_prob_dtype: log_probs_N are those of logits rounded to this type. A model that computes in bfloat16 takes
            its log-probs from such logits in the update; old ones from finer logits would move the ratio off 1 before
            anything is learnt.

    Raises:
        ValueError: unknown kind, temperature not above 0, rows_per_chunk below 1, or shapes that disagree.
    """
    check_kind(kind)
    lengths = row_lengths(lengths_G)
    _check_shapes(hidden_NH, lengths, head_VH, bias_V, targets_N)
    if not temperature > 0:
        raise ValueError(f"divergence: temperature is {temperature}, it must be above 0")
    if rows_per_chunk is None:
        rows_per_chunk = ROWS_PER_CHUNK.get(hidden_NH.device.type, ROWS_PER_CHUNK["cuda"])
    if rows_per_chunk < 1:
        raise ValueError(f"divergence: rows_per_chunk is {rows_per_chunk}, it must be at least 1")

    device, G, (V, _) = hidden_NH.device, len(lengths), head_VH.shape
    vocabulary = _Vocabulary(V, None)
    if bias_V is not None:
        masked_V = bias_V == -math.inf
        bias_V = bias_V.float().masked_fill(masked_V, MASKED)
        masked_columns = int(masked_V.sum())
        if masked_columns:
            vocabulary = _Vocabulary(V - masked_columns, (~masked_V).float())

    # rows sorted by length: the k live rows of every position are then the first k of them
    order = sorted(range(G), key=lambda row: -lengths[row])
    packed_N, live_TG = (index.to(device) for index in _position_major(lengths, order))
    block_rows = BLOCK_BYTES.get(device.type, BLOCK_BYTES["cuda"]) // (4 * V)
    spans = list(_spans(lengths, order, max(min(block_rows, rows_per_chunk), 1)))
    chunks = list(_chunks(spans, rows_per_chunk))
    N, T = len(packed_N), max(lengths)

    logits_RV = torch.empty(max((sum(span.rows for span in chunk) for chunk in chunks), default=0), V, device=device)
    probs_RV = torch.empty(max((span.rows for span in spans), default=0), V, device=device)
    mixture_PV = torch.empty(max((span.positions for span in spans), default=0), V, device=device)
    # by row in position-major order: maximum logit m, sum exp(z - m), sum p (z - m), logit of the target
    max_N, sum_N, dot_N, target_N, rounded_N = (torch.empty(N, device=device) for _ in range(5))
    # by position: sum over columns of x ln x of the mixture, or of the released code's terms
    total_T = torch.empty(T, device=device)

    row = 0
    for chunk in chunks:
        chunk_rows = slice(row, row + sum(span.rows for span in chunk))
        chunk_N = packed_N[chunk_rows]
        z_RV = logits_RV[: len(chunk_N)]
        _project(hidden_NH[chunk_N], head_VH, bias_V, temperature, out=z_RV)
        if targets_N is not None:
            targets_R = targets_N[chunk_N]
            target_N[chunk_rows] = z_RV.gather(1, targets_R[:, None])[:, 0]
            if log_prob_dtype is not None:
                rounded_N[chunk_rows] = _rounded_log_probs(
                    z_RV, targets_R, temperature, log_prob_dtype, max(block_rows, 1)
                )
        for span in chunk:
            rows = slice(row, row + span.rows)
            _reduce(
                z_RV[rows.start - chunk_rows.start : rows.stop - chunk_rows.start].view(span.positions, span.k, V),
                probs_RV[: span.rows].view(span.positions, span.k, V),
                mixture_PV[: span.positions],
                max_N[rows].view(span.positions, span.k),
                sum_N[rows].view(span.positions, span.k),
                dot_N[rows].view(span.positions, span.k),
                total_T[span.first : span.first + span.positions],
                kind,
                G,
                vocabulary,
            )
            row = rows.stop

    log_sum_N = sum_N.log()
    entropy_N = log_sum_N - dot_N
    if kind == "released":
        divergence_T = total_T / G
    else:
        # sum_i KL(p_i || m) = G H(m) - sum_i H(p_i), an ended row having entropy ln V. Rounding can take the difference
        # below 0 by some 1e-6 a row, so it is cut off there.
        live_T = live_TG.sum(1).float()
        rows_T = torch.full_like(live_T, G) if kind == "jsd" else live_T
        entropy_T = torch.zeros(T, G, device=device).masked_scatter_(live_TG, entropy_N).sum(1)
        ended_entropy_T = (rows_T - live_T) * math.log(vocabulary.size)
        divergence_T = (-rows_T * total_T - entropy_T - ended_entropy_T).clamp_(min=0)
        if kind == "live":
            divergence_T = torch.where(live_T > 1, divergence_T / (live_T * live_T.log()), 0.0)

    def row_major(values_N: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(values_N).index_copy_(0, packed_N, values_N)

    log_probs_N = None
    if targets_N is not None:
        log_probs_N = row_major(target_N - max_N - log_sum_N if log_prob_dtype is None else rounded_N)
        if vocabulary.keep_V is not None:
            log_probs_N.masked_fill_(vocabulary.keep_V[targets_N] == 0, -math.inf)
    return GroupDivergence(
        divergence_T, log_probs_N, row_major(entropy_N), row_major(max_N + log_sum_N), vocabulary.size
    )


def _reduce(
    z_PKV: torch.Tensor,
    p_PKV: torch.Tensor,
    mixture_PV: torch.Tensor,
    max_PK: torch.Tensor,
    sum_PK: torch.Tensor,
    dot_PK: torch.Tensor,
    total_P: torch.Tensor,
    kind: DivergenceKind,
    G: int,
    vocabulary: _Vocabulary,
) -> None:
    """From the logits z of a block (overwritten), with p and mixture as workspace, into max, sum, dot and total.

    All in place: what allocates a block anew pays for its pages each time.
    """
    k = z_PKV.shape[1]
    ended = G - k
    # with the maximum taken off, entropy has no large terms to cancel
    z_PKV.sub_(torch.amax(z_PKV, -1, out=max_PK)[..., None])
    torch.exp(z_PKV, out=p_PKV)
    p_PKV.mul_(torch.sum(p_PKV, -1, out=sum_PK).reciprocal()[..., None])
    if kind != "released":
        torch.sum(p_PKV, 1, out=mixture_PV)
    torch.sum(p_PKV.mul_(z_PKV), -1, out=dot_PK)

    if kind != "released":
        rows = G if kind == "jsd" else k
        fill_V = (rows - k) / (vocabulary.size * rows)
        if vocabulary.keep_V is not None:
            fill_V = vocabulary.keep_V * fill_V
        # the smallest normal number keeps x ln x at 0, not NaN, for columns to which no row gives any probability
        mixture_PV.div_(rows).add_(fill_V + torch.finfo(torch.float32).tiny)
        log_mixture_PV = torch.log(mixture_PV, out=p_PKV.view(-1, z_PKV.shape[-1])[: len(mixture_PV)])
        torch.sum(log_mixture_PV.mul_(mixture_PV), -1, out=total_P)
        return

    log_probs_PKV = z_PKV.sub_(sum_PK.log()[..., None])
    log_uniform = -math.log(vocabulary.size)
    mean_PV = torch.sum(log_probs_PKV, 1, out=mixture_PV).add_(ended * log_uniform).div_(G)
    total_P.copy_(_released_terms(torch.sub(mean_PV[:, None], log_probs_PKV, out=p_PKV), vocabulary).sum(-1))
    if ended:
        total_P.add_(_released_terms(mean_PV.sub_(log_uniform), vocabulary), alpha=ended)


def _released_terms(difference: torch.Tensor, vocabulary: _Vocabulary) -> torch.Tensor:
    """sum_v (exp(d) - d - 1) with d clamped to [-11, 11]; overwrites d."""
    difference.clamp_(-RELEASED_CLAMP, RELEASED_CLAMP)
    if vocabulary.keep_V is not None:
        difference.mul_(vocabulary.keep_V)
    linear = difference.sum(-1)
    return difference.expm1_().sum(-1) - linear


def _project(
    hidden_RH: torch.Tensor,
    head_VH: torch.Tensor,
    bias_V: torch.Tensor | None,
    temperature: float,
    out: torch.Tensor,
) -> None:
    """Logits over temperature in float32, into ``out``: autocast around the caller leaves such calls alone."""
    if head_VH.is_cuda and head_VH.dtype == hidden_RH.dtype and head_VH.dtype in (torch.bfloat16, torch.float16):
        torch.mm(hidden_RH, head_VH.t(), out_dtype=torch.float32, out=out)
        if bias_V is not None:
            out.add_(bias_V)
        if temperature != 1.0:
            out.div_(temperature)
        return
    hidden_RH = hidden_RH.float()
    V, H = head_VH.shape
    columns = V if head_VH.dtype == torch.float32 else max(UPCAST_WEIGHTS // H, 1)
    for first in range(0, V, columns):
        block = slice(first, min(first + columns, V))
        added = out[:, block] if bias_V is None else bias_V[block]
        scale = 1.0 / temperature
        torch.addmm(
            added,
            hidden_RH,
            head_VH[block].float().t(),
            beta=0.0 if bias_V is None else scale,
            alpha=scale,
            out=out[:, block],
        )


def _rounded_log_probs(
    scaled_RV: torch.Tensor, targets_R: torch.Tensor, temperature: float, dtype: torch.dtype, block_rows: int
) -> torch.Tensor:
    """Log-probs of the targets under logits rounded to ``dtype``, with float32 sums, a block of rows at a time.

    Rounds where verl does: the logits, the temperature, and their quotient
    (verl/workers/engine/fsdp/transformer_impl.py: _scale_logits_by_temperature).
    """
    rounded_temperature = torch.tensor(temperature, dtype=dtype, device=scaled_RV.device)
    blocks = []
    for block_RV, block_R in zip(scaled_RV.split(block_rows), targets_R.split(block_rows), strict=True):
        rounded_RV = ((block_RV * temperature).to(dtype) / rounded_temperature).float()
        blocks.append(rounded_RV.gather(1, block_R[:, None])[:, 0] - rounded_RV.logsumexp(-1))
    return torch.cat(blocks)


def _position_major(lengths: list[int], order: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Packed indices in the order position 0 of every live row, position 1, ...; and which rows are live where."""
    starts = torch.tensor([0, *lengths]).cumsum(0)
    position_T1 = torch.arange(max(lengths))[:, None]
    live_TG = position_T1 < torch.tensor(lengths)[order]
    return (starts[order] + position_T1)[live_TG], live_TG


def _spans(lengths: list[int], order: list[int], block_rows: int) -> Iterator[_Span]:
    """Cuts the positions where the number of live rows changes, and then to at most block_rows rows (one position)."""
    first = 0
    for k in range(len(order), 0, -1):
        end = lengths[order[k - 1]]
        step = max(block_rows // k, 1)
        for start in range(first, end, step):
            yield _Span(start, min(step, end - start), k)
        first = max(first, end)


def _chunks(spans: list[_Span], rows_per_chunk: int) -> Iterator[list[_Span]]:
    """Packs consecutive spans into head GEMMs of at most rows_per_chunk rows (at least one span)."""
    chunk: list[_Span] = []
    for span in spans:
        if chunk and sum(s.rows for s in chunk) + span.rows > rows_per_chunk:
            yield chunk
            chunk = []
        chunk.append(span)
    if chunk:
        yield chunk


def _check_shapes(
    hidden_NH: torch.Tensor,
    lengths: list[int],
    head_VH: torch.Tensor,
    bias_V: torch.Tensor | None,
    targets_N: torch.Tensor | None,
) -> None:
    N = sum(lengths)
    if hidden_NH.dim() != 2 or hidden_NH.shape[0] != N:
        raise ValueError(
            f"divergence: hidden_NH has shape {tuple(hidden_NH.shape)}, expected [{N}, H]: pack the live rows only, "
            f"lengths_G sums to {N}"
        )
    if head_VH.dim() != 2 or head_VH.shape[1] != hidden_NH.shape[1]:
        raise ValueError(
            f"divergence: head_VH has shape {tuple(head_VH.shape)}, expected [V, {hidden_NH.shape[1]}] as hidden_NH "
            f"has {hidden_NH.shape[1]} columns (a sharded head must be gathered first)"
        )
    if bias_V is not None and bias_V.shape != head_VH.shape[:1]:
        raise ValueError(f"divergence: bias_V has shape {tuple(bias_V.shape)}, expected [{head_VH.shape[0]}]")
    if targets_N is not None and targets_N.shape != (N,):
        raise ValueError(f"divergence: targets_N has shape {tuple(targets_N.shape)}, expected [{N}]")
