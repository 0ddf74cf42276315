"""One pass of a group through the language-model head: divergence by position, log-prob and entropy by token.

The mixture at a position needs only the responses of that position. So the packed hidden states are walked position by
position, all live responses of a position together, ``tokens_per_chunk`` tokens at a time: logits of a chunk,
everything that is wanted from them, and the buffer is used again. No [G, T, V] tensor exists.

The walk knows no kind of divergence: it hands each ``Block`` to the one that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from verl_twgrpo.algorithm.divergences import Block, get_divergence, row_lengths

# Tokens of one head GEMM. A chunk streams the whole head (V*H weights) for 2*tokens*V*H flops, that is tokens / 2 flops
# per byte of float32 weights or tokens of bfloat16 ones. Two CPU cores do about 200 Gflop/s over 20 GB/s: from 20
# tokens on they compute rather than wait, and packing the weights inside the GEMM fades by 256 tokens (measured: at 64
# a token costs 1.4 times as much). An H200 does 990 Tflop/s over 4.8 TB/s: 206 tokens, and 512 leave room for the rest
# of a launch. The logits of a chunk take tokens * V * 4 bytes: 256 * 32768 -> 32 MiB, 512 * 152064 -> 297 MiB.
TOKENS_PER_CHUNK = {"cpu": 256, "cuda": 512}

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

    divergence_T: by position, T the longest response. log_probs_N: of the target tokens (None without targets).
    entropy_N: of the logits over temperature, in nats. N: packed response tokens, response after response.
    vocabulary_size: columns of the head.
    """

    divergence_T: torch.Tensor
    log_probs_N: torch.Tensor | None
    entropy_N: torch.Tensor
    vocabulary_size: int


@dataclass(frozen=True)
class _Span:
    """Positions first .. first + positions - 1, at all of which the same k responses are live."""

    first: int
    positions: int
    k: int

    @property
    def tokens(self) -> int:
        return self.positions * self.k


@torch.no_grad()
def chunked_group_divergence(
    hidden_NH: torch.Tensor,
    lengths_G: Sequence[int] | torch.Tensor,
    head_VH: torch.Tensor,
    bias_V: torch.Tensor | None = None,
    temperature: float = 1.0,
    kind: str = "jsd",
    targets_N: torch.Tensor | None = None,
    tokens_per_chunk: int | None = None,
    log_prob_dtype: torch.dtype | None = None,
    rows_per_chunk: int | None = None,
) -> GroupDivergence:
    """Divergence by position, and log-prob and entropy by token, of one group; the values of ``group_divergence``.

    Accumulates and keeps logits in float32 whatever the inputs are: log-sum-exps of logits rounded to bfloat16 shift
    the divergence by 0.4. Not differentiable. Extra memory whatever T is: logits of max(tokens_per_chunk, G) tokens,
    and probabilities and mixture of a block of them, that is at most 3 * max(tokens_per_chunk, G) * V * 4 bytes.

    Args:
        hidden_NH: final hidden states of the positions that predict the N response tokens, response after response.
        lengths_G: tokens in each response, 0 allowed; they sum to N.
        head_VH: weight of the head, a plain tensor (unshard it first). On a GPU, bfloat16 hidden states with a bfloat16
            head run on the tensor cores; a float32 head runs as a float32 GEMM.
        bias_V: bias of the head, finite.
        temperature: logits are divided by it.
        kind: name of a registered divergence.
        targets_N: the response tokens, int64.
        tokens_per_chunk: tokens of one head GEMM.
        log_prob_dtype: log_probs_N are those of logits rounded to this type. A model that computes in bfloat16 takes
            its log-probs from such logits in the update; old ones from finer logits would move the ratio off 1 before
            anything is learnt.
        rows_per_chunk: the former name of tokens_per_chunk.

    Raises:
        ValueError: unknown kind, temperature not above 0, tokens_per_chunk below 1, an infinite bias, or shapes that
            disagree.
    """
    divergence = get_divergence(kind)
    lengths = row_lengths(lengths_G)
    _check_shapes(hidden_NH, lengths, head_VH, bias_V, targets_N)
    if not temperature > 0:
        raise ValueError(f"divergence: temperature is {temperature}, it must be above 0")
    if tokens_per_chunk is None:
        tokens_per_chunk = rows_per_chunk
    if tokens_per_chunk is None:
        tokens_per_chunk = TOKENS_PER_CHUNK.get(hidden_NH.device.type, TOKENS_PER_CHUNK["cuda"])
    if tokens_per_chunk < 1:
        raise ValueError(f"divergence: tokens_per_chunk is {tokens_per_chunk}, it must be at least 1")

    device, G, (V, _) = hidden_NH.device, len(lengths), head_VH.shape
    if bias_V is not None:
        bias_V = bias_V.float()
        if bias_V.isinf().any():
            raise ValueError("divergence: bias_V has infinite values; take such columns out of the head instead")

    # responses sorted by length: the k live ones of every position are then the first k of them
    order = sorted(range(G), key=lambda row: -lengths[row])
    packed_N = _position_major(lengths, order).to(device)
    block_tokens = BLOCK_BYTES.get(device.type, BLOCK_BYTES["cuda"]) // (4 * V)
    spans = list(_spans(lengths, order, max(min(block_tokens, tokens_per_chunk), 1)))
    chunks = list(_chunks(spans, tokens_per_chunk))
    N, T = len(packed_N), max(lengths)

    logits_RV = torch.empty(max((sum(span.tokens for span in chunk) for chunk in chunks), default=0), V, device=device)
    scratch_RV = torch.empty(max((span.tokens for span in spans), default=0), V, device=device)
    mixture_PV = torch.empty(max((span.positions for span in spans), default=0), V, device=device)
    rounds = targets_N is not None and log_prob_dtype is not None
    rounded_RV = torch.empty_like(scratch_RV, dtype=log_prob_dtype) if rounds else None
    # by token in position-major order: maximum logit m, ln sum exp(z - m), entropy, logit of the target
    max_N, log_sum_N, entropy_N, target_N, rounded_N = (torch.empty(N, device=device) for _ in range(5))
    divergence_T = torch.empty(T, device=device)

    row = 0
    for chunk in chunks:
        chunk_rows = slice(row, row + sum(span.tokens for span in chunk))
        chunk_N = packed_N[chunk_rows]
        z_RV = logits_RV[: len(chunk_N)]
        _project(hidden_NH[chunk_N], head_VH, bias_V, temperature, out=z_RV)
        if targets_N is not None:
            targets_R = targets_N[chunk_N]
            target_N[chunk_rows] = z_RV.gather(1, targets_R[:, None])[:, 0]
        for span in chunk:
            rows, shape = slice(row, row + span.tokens), (span.positions, span.k)
            in_chunk = slice(rows.start - chunk_rows.start, rows.stop - chunk_rows.start)
            torch.amax(z_RV[in_chunk], -1, out=max_N[rows])
            if rounded_RV is not None:
                rounded_N[rows] = _rounded_log_probs(
                    z_RV[in_chunk],
                    targets_R[in_chunk],
                    max_N[rows],
                    temperature,
                    rounded_RV[: span.tokens],
                    scratch_RV[: span.tokens],
                )
            block = _block(
                z_RV[in_chunk].view(*shape, V),
                scratch_RV[: span.tokens].view(*shape, V),
                mixture_PV[: span.positions],
                max_N[rows].view(shape),
                log_sum_N[rows].view(shape),
                entropy_N[rows].view(shape),
                G,
                divergence.needs_mixture,
            )
            divergence_T[span.first : span.first + span.positions] = divergence.of_block(block)
            row = rows.stop

    def row_major(values_N: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(values_N).index_copy_(0, packed_N, values_N)

    log_probs_N = None
    if targets_N is not None:
        log_probs_N = row_major(target_N - max_N - log_sum_N if log_prob_dtype is None else rounded_N)
    return GroupDivergence(divergence_T, log_probs_N, row_major(entropy_N), V)


def _block(
    z_PKV: torch.Tensor,
    scratch_PKV: torch.Tensor,
    mixture_PV: torch.Tensor,
    max_PK: torch.Tensor,
    log_sum_PK: torch.Tensor,
    entropy_PK: torch.Tensor,
    G: int,
    needs_mixture: bool,
) -> Block:
    """The block of logits z, whose row maxima are taken off in place; fills log-sum and entropy.

    All in place: what allocates a block anew pays for its pages each time.
    """
    # with the maximum taken off, entropy has no large terms to cancel
    z_PKV.sub_(max_PK[..., None])
    p_PKV = torch.exp(z_PKV, out=scratch_PKV)
    sum_PK = p_PKV.sum(-1)
    p_PKV.mul_(sum_PK.reciprocal()[..., None])
    if needs_mixture:
        torch.sum(p_PKV, 1, out=mixture_PV)
    torch.log(sum_PK, out=log_sum_PK)
    torch.sub(log_sum_PK, p_PKV.mul_(z_PKV).sum(-1), out=entropy_PK)
    return Block(z_PKV, mixture_PV, p_PKV, log_sum_PK, entropy_PK, G)


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
    scaled_RV: torch.Tensor,
    targets_R: torch.Tensor,
    max_R: torch.Tensor,
    temperature: float,
    rounded_RV: torch.Tensor,
    scratch_RV: torch.Tensor,
) -> torch.Tensor:
    """Log-probs of the targets under logits rounded to the dtype of ``rounded_RV``, with float32 sums.

    Rounds where verl does: the logits, the temperature, and their quotient
    (verl/workers/engine/fsdp/transformer_impl.py: _scale_logits_by_temperature).

    Args:
        scaled_RV: logits over temperature, float32; left as they are.
        max_R: their maxima. Rounding keeps the order of numbers: the maximum of the rounded is the maximum, rounded.
        rounded_RV, scratch_RV: room, the latter float32.
    """
    dtype = rounded_RV.dtype
    if temperature == 1.0:
        scratch_RV.copy_(rounded_RV.copy_(scaled_RV))
        max_R = max_R.to(dtype).float()
    else:
        # a number, not a tensor on the device: copying one there makes the host wait, once per block
        rounded_temperature = torch.tensor(temperature, dtype=dtype).item()
        torch.mul(scaled_RV, temperature, out=scratch_RV)
        scratch_RV.copy_(rounded_RV.copy_(scratch_RV).div_(rounded_temperature))
        max_R = (max_R * temperature).to(dtype).div_(rounded_temperature).float()
    target_R = scratch_RV.gather(1, targets_R[:, None])[:, 0] - max_R
    return target_R - scratch_RV.sub_(max_R[:, None]).exp_().sum(-1).log_()


def _position_major(lengths: list[int], order: list[int]) -> torch.Tensor:
    """Packed indices in the order position 0 of every live response, position 1, ..."""
    starts = torch.tensor([0, *lengths]).cumsum(0)
    position_T1 = torch.arange(max(lengths))[:, None]
    live_TG = position_T1 < torch.tensor(lengths)[order]
    return (starts[order] + position_T1)[live_TG]


def _spans(lengths: list[int], order: list[int], block_tokens: int) -> Iterator[_Span]:
    """Cuts the positions where the number of live responses changes, then to at most block_tokens (or one position)."""
    first = 0
    for k in range(len(order), 0, -1):
        end = lengths[order[k - 1]]
        step = max(block_tokens // k, 1)
        for start in range(first, end, step):
            yield _Span(start, min(step, end - start), k)
        first = max(first, end)


def _chunks(spans: list[_Span], tokens_per_chunk: int) -> Iterator[list[_Span]]:
    """Packs consecutive spans into head GEMMs of at most tokens_per_chunk tokens (at least one span)."""
    chunk: list[_Span] = []
    for span in spans:
        if chunk and sum(s.tokens for s in chunk) + span.tokens > tokens_per_chunk:
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
            f"divergence: hidden_NH has shape {tuple(hidden_NH.shape)}, expected [{N}, H]: pack the response tokens "
            f"only, lengths_G sums to {N}"
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
