"""How much the responses of a group disagree about the next token, position by position: a class per kind.

Each kind says the same thing three times: plainly and differentiably on all log-probs (``of_rows``), fast on a block of
the head pass (``of_block``), and how much of it is float noise (``noise``). Over the G responses of a group, k of which
are live (not yet ended) at position t:

- ``jsd``: Eq. 4 of the paper, sum_i KL(p_i || m) with m the mean of the G distributions, an ended response counting as
  uniform 1/V. 0 <= D_t <= k ln G + (G-k) ln(G/(G-k)), in nats.
- ``released``: the arithmetic of the authors' released code: d = clamp(mean_j z_j - z_i, -11, 11) over log-probs z,
  D_t = mean_i sum_v (exp(d) - d - 1). Grows with V.
- ``live``: our own. Against the uniform fill even responses that agree diverge, so that in a ragged tail D_t says
  mostly how many have ended: with each, ``jsd`` of responses that differ falls (measured on a language model in
  recipes/smollm2_weights, where ``released`` hardly follows, ruled as it is by a few positions). Here the mixture is
  that of the k live responses only, and the sum of their KL is divided by its bound k ln k: D_t lies in [0, 1] whatever
  k is, and is 0 for k = 1, where there is nobody to disagree with.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from verl_twgrpo.algorithm.registry import Registry

# The released code clamps log-prob differences here, so that exp(d) of a token one response has ruled out stays finite.
RELEASED_CLAMP = 11.0

# Stands for the log-prob -inf of a masked column: exp gives exactly 0, and 0 * MASKED is 0 where 0 * -inf is NaN.
MASKED = -1e30

# A response's disagreement that is only noise: identical responses, padded differently and computed in bfloat16, come
# out up to 5e-3 nats apart (SmolLM2, recipes/smollm2_weights). Responses that say different things: 0.1 and more.
NOISE_NATS_PER_RESPONSE = 1e-2


@dataclass
class Block:
    """P positions, at all of which the same k of the group's G responses are live, as a divergence sees them.

    The three large tensors are the divergence's to overwrite; the walk is done with them. G counts ended responses too.

    logits_PKV: over temperature, each row's maximum taken off. log_sum_PK: their log-sum-exp, so that the log-probs are
    logits - log_sum. entropy_PK: in nats. sum_of_probs_PV: the sum of the k rows' probabilities, if the divergence
    ``needs_mixture``, else undefined. scratch_PKV: room of the logits' size. vocabulary_size: of the model, where the
    columns here are only those of one rank's shard.
    """

    logits_PKV: torch.Tensor
    sum_of_probs_PV: torch.Tensor
    scratch_PKV: torch.Tensor
    log_sum_PK: torch.Tensor
    entropy_PK: torch.Tensor
    G: int
    vocabulary_size: int | None = None

    @property
    def k(self) -> int:
        return self.logits_PKV.shape[1]

    @property
    def V(self) -> int:
        """Columns of the model's vocabulary."""
        return self.logits_PKV.shape[2] if self.vocabulary_size is None else self.vocabulary_size

    def log_probs_PKV(self) -> torch.Tensor:
        """Log-probs, in the place of the logits."""
        return self.logits_PKV.sub_(self.log_sum_PK[..., None])

    def entropy_sum_P(self) -> torch.Tensor:
        """Sum of the live responses' entropies; the order of its terms does not depend on k."""
        padded_PG = self.entropy_PK.new_zeros(len(self.entropy_PK), self.G)
        padded_PG[:, : self.k] = self.entropy_PK
        return padded_PG.sum(1)


class Divergence(ABC):
    """One kind of divergence; stateless.

    name: as ``algorithm.tw_grpo.divergence`` selects it. needs_mixture: whether ``of_block`` reads the block's
    ``sum_of_probs_PV``. range_eps: added to the range by which the min-max normalisation divides.
    """

    name: ClassVar[str]
    needs_mixture: ClassVar[bool] = False
    range_eps: ClassVar[float] = 0.0

    @abstractmethod
    def of_block(self, block: Block) -> torch.Tensor:
        """divergence_P, float32, of the block's positions; may overwrite the block's large tensors."""

    @abstractmethod
    def of_rows(self, log_probs_GTV: torch.Tensor, lengths_G: Sequence[int]) -> torch.Tensor:
        """divergence_T in the dtype of log_probs_GTV [G, T, V], T = max(lengths_G), differentiable: the definition.

        What lies at and after a response's length is not read. Columns that are -inf in every live response of a
        position do not count in its V.
        """

    @abstractmethod
    def noise(self, G: int, V: int) -> float:
        """Range over positions below which G responses over V columns say nothing, in the divergence's own unit."""


class ColumnwiseDivergence(Divergence):
    """A divergence that is made of one sum over columns: it runs where every rank has some of the columns, too."""

    @abstractmethod
    def column_sum(self, block: Block) -> torch.Tensor:
        """The sum over the block's columns, by position, float32; may overwrite the block's large tensors."""

    @abstractmethod
    def of_sum(self, sum_P: torch.Tensor, block: Block) -> torch.Tensor:
        """divergence_P of the sum over all columns of the vocabulary; reads nothing of the block's large tensors."""

    def of_block(self, block: Block) -> torch.Tensor:
        return self.of_sum(self.column_sum(block), block)


DIVERGENCES: Registry[type[Divergence]] = Registry("divergence", "verl_twgrpo.divergences")


def get_divergence(name: str) -> Divergence:
    """The divergence of that name. Raises ``ValueError`` with all names there are."""
    return DIVERGENCES.get(name)()


def row_lengths(lengths_G: Sequence[int] | torch.Tensor) -> list[int]:
    """Tokens of each response of a group, as Python ints.

    Raises ValueError for an empty group or a negative length.
    """
    lengths = [int(n) for n in (lengths_G.tolist() if isinstance(lengths_G, torch.Tensor) else lengths_G)]
    if not lengths:
        raise ValueError("divergence: the group has no responses, give the length of each")
    if min(lengths) < 0:
        raise ValueError(f"divergence: row {lengths.index(min(lengths))} has negative length {min(lengths)}")
    return lengths


def group_divergence(
    log_probs_GTV: torch.Tensor, lengths_G: Sequence[int] | torch.Tensor, kind: str = "jsd"
) -> torch.Tensor:
    """Divergence of a group at each position, differentiable; it holds several [G, T, V] tensors, so for small inputs.

    Args:
        log_probs_GTV: next-token log-probs, float; what lies at and after a response's length is not read. Columns that
            are -inf in every live response of a position do not count in its V. NaN stays NaN.
        lengths_G: tokens of each response; 0 is allowed (it counts as ended from the start).
        kind: name of a registered divergence; ``jsd`` is Eq. 4.

    Returns:
        divergence_T with T = max(lengths_G), float32 (float64 if the input is).

    Raises:
        ValueError: unknown kind, or shapes and lengths that disagree.
    """
    divergence = get_divergence(kind)
    lengths = row_lengths(lengths_G)
    G, T = len(lengths), max(lengths)
    if log_probs_GTV.dim() != 3 or log_probs_GTV.shape[0] != G or log_probs_GTV.shape[1] < T:
        raise ValueError(
            f"divergence: log_probs_GTV has shape {tuple(log_probs_GTV.shape)}, expected [{G}, at least {T}, V] for "
            f"{G} rows of at most {T} tokens"
        )
    log_probs_GTV = log_probs_GTV[:, :T]
    return divergence.of_rows(log_probs_GTV if log_probs_GTV.dtype == torch.float64 else log_probs_GTV.float(), lengths)


@DIVERGENCES.register
class JSD(ColumnwiseDivergence):
    """Eq. 4: sum_i KL(p_i || m) = G H(m) - sum_i H(p_i), ended responses being uniform."""

    name = "jsd"
    needs_mixture = True

    def column_sum(self, block: Block) -> torch.Tensor:
        return _negative_entropy_of_mixture(block, block.G)

    def of_sum(self, sum_P: torch.Tensor, block: Block) -> torch.Tensor:
        return _entropy_gap(sum_P, block, block.G)

    def of_rows(self, log_probs_GTV: torch.Tensor, lengths_G: Sequence[int]) -> torch.Tensor:
        live_GT = live_positions(lengths_G, log_probs_GTV.device)
        filled_GTV, _ = with_uniform_tail(log_probs_GTV, live_GT)
        return _sum_of_kl_to_mixture(filled_GTV, torch.full_like(live_GT[0], len(live_GT), dtype=filled_GTV.dtype))

    def noise(self, G: int, V: int) -> float:
        return NOISE_NATS_PER_RESPONSE * G


@DIVERGENCES.register
class Released(ColumnwiseDivergence):
    """The released code's: mean_i sum_v (exp(d) - d - 1), d = clamp(mean_j z_j - z_i, -11, 11) over log-probs z."""

    name = "released"
    # the released code adds it: n = (D - min) / (max - min + 1e-8)
    range_eps = 1e-8

    def column_sum(self, block: Block) -> torch.Tensor:
        log_probs_PKV = block.log_probs_PKV()
        log_uniform, ended = -math.log(block.V), block.G - block.k
        mean_PV = torch.sum(log_probs_PKV, 1, out=block.sum_of_probs_PV).add_(ended * log_uniform).div_(block.G)
        difference_PKV = torch.sub(mean_PV[:, None], log_probs_PKV, out=block.scratch_PKV)
        total_P = self._terms(difference_PKV).sum(-1)
        if ended:
            total_P.add_(self._terms(mean_PV.sub_(log_uniform)), alpha=ended)
        return total_P

    def of_sum(self, sum_P: torch.Tensor, block: Block) -> torch.Tensor:
        return sum_P / block.G

    def of_rows(self, log_probs_GTV: torch.Tensor, lengths_G: Sequence[int]) -> torch.Tensor:
        filled_GTV, counted_TV = with_uniform_tail(log_probs_GTV, live_positions(lengths_G, log_probs_GTV.device))
        difference_GTV = (filled_GTV.mean(0) - filled_GTV).clamp(-RELEASED_CLAMP, RELEASED_CLAMP)
        return ((torch.expm1(difference_GTV) - difference_GTV) * counted_TV).sum(-1).mean(0)

    def noise(self, G: int, V: int) -> float:
        # a sum of d^2 / 2 over the vocabulary
        return NOISE_NATS_PER_RESPONSE * V

    @staticmethod
    def _terms(difference: torch.Tensor) -> torch.Tensor:
        """sum_v (exp(d) - d - 1) with d clamped; overwrites d."""
        difference.clamp_(-RELEASED_CLAMP, RELEASED_CLAMP)
        linear = difference.sum(-1)
        return difference.expm1_().sum(-1) - linear


@DIVERGENCES.register
class Live(ColumnwiseDivergence):
    """The KL of the live responses to their own mixture, summed, over its bound k ln k; 0 for k = 1."""

    name = "live"
    needs_mixture = True

    def column_sum(self, block: Block) -> torch.Tensor:
        return _negative_entropy_of_mixture(block, block.k)

    def of_sum(self, sum_P: torch.Tensor, block: Block) -> torch.Tensor:
        gap_P = _entropy_gap(sum_P, block, block.k)
        if block.k < 2:
            return torch.zeros_like(gap_P)
        k_P = torch.full_like(gap_P, block.k)
        return gap_P / (k_P * k_P.log())

    def of_rows(self, log_probs_GTV: torch.Tensor, lengths_G: Sequence[int]) -> torch.Tensor:
        live_GT = live_positions(lengths_G, log_probs_GTV.device)
        masked_GTV = torch.where(live_GT[..., None], log_probs_GTV.clamp(min=MASKED), MASKED)
        live_T = live_GT.sum(0).to(log_probs_GTV.dtype)
        bound_T = torch.where(live_T > 1, live_T * live_T.log(), 1.0)
        return torch.where(live_T > 1, _sum_of_kl_to_mixture(masked_GTV, live_T) / bound_T, 0.0)

    def noise(self, G: int, V: int) -> float:
        # a share of its bound
        return NOISE_NATS_PER_RESPONSE


def live_positions(lengths_G: Sequence[int], device: torch.device) -> torch.Tensor:
    """live_GT, bool: whether response i has a token at position t; T = max(lengths_G)."""
    return torch.arange(max(lengths_G), device=device) < torch.tensor(list(lengths_G), device=device)[:, None]


def with_uniform_tail(log_probs_GTV: torch.Tensor, live_GT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs whose ended responses are uniform over the columns that count, and which columns count, [T, V].

    A column counts at a position unless all its live responses have -inf there; -inf becomes ``MASKED``.
    """
    counted_TV = ((log_probs_GTV != -math.inf) & live_GT[..., None]).any(0)
    log_uniform_T1 = -counted_TV.sum(-1, keepdim=True).to(log_probs_GTV.dtype).log()
    # clamp leaves NaN alone: what is not a number must not come out as one
    live_GTV = torch.where(live_GT[..., None], log_probs_GTV.clamp(min=MASKED), MASKED)
    return torch.where(live_GT[..., None] | ~counted_TV, live_GTV, log_uniform_T1), counted_TV


def _sum_of_kl_to_mixture(log_probs_GTV: torch.Tensor, rows_T: torch.Tensor) -> torch.Tensor:
    """sum_i KL(p_i || m) with m = sum_i p_i / rows; never below 0 (Gibbs), so rounding is cut off there."""
    log_mixture_TV = torch.logsumexp(log_probs_GTV, 0) - rows_T.log()[:, None]
    return (log_probs_GTV.exp() * (log_probs_GTV - log_mixture_TV)).sum((0, 2)).clamp(min=0)


def _negative_entropy_of_mixture(block: Block, rows: int) -> torch.Tensor:
    """-H(m) over the block's columns, m the mean of the k live responses and rows - k uniform ones; overwrites m."""
    mixture_PV = block.sum_of_probs_PV
    # the smallest normal number keeps x ln x at 0, not NaN, for columns to which no response gives any probability
    mixture_PV.div_(rows).add_((rows - block.k) / (block.V * rows) + torch.finfo(torch.float32).tiny)
    log_mixture_PV = torch.log(mixture_PV, out=block.scratch_PKV.view(-1, mixture_PV.shape[1])[: len(mixture_PV)])
    return torch.sum(log_mixture_PV.mul_(mixture_PV), -1)


def _entropy_gap(negative_entropy_P: torch.Tensor, block: Block, rows: int) -> torch.Tensor:
    """rows H(m) - sum_i H(p_i) over the k live responses and rows - k uniform ones, m the mean of all of them.

    It is the sum of their KL to m. Rounding can take the difference below 0 by some 1e-6 per response: cut off there.
    """
    ended = rows - block.k
    # an ended response has entropy ln V
    ended_entropy_P = torch.full_like(negative_entropy_P, ended) * math.log(block.V)
    return (-rows * negative_entropy_P - block.entropy_sum_P() - ended_entropy_P).clamp_(min=0)
