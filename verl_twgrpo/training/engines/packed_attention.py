"""Attention over packed groups: a prompt once, behind it the responses, each of which sees the prompt and itself.

Registered with transformers as an attention function by the name ``PACKED_ATTENTION``. Which tokens belong together
comes from ``set_layout``, not through the model's arguments: gradient checkpointing runs a layer again in the backward
pass, on CUDA from another thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

# Name under which transformers finds the function (config._attn_implementation).
PACKED_ATTENTION = "tw_grpo_packed"


@dataclass(frozen=True)
class PackedLayout:
    """Which tokens of a packed row are whose: group after group, each its prompt and then its responses.

    groups: by group the prompt's length (1 or more) and the responses' lengths (1 or more each), in tokens.
    device: where the attention runs.
    """

    groups: tuple[tuple[int, tuple[int, ...]], ...]
    device: torch.device

    @property
    def tokens(self) -> int:
        return sum(prompt + sum(responses) for prompt, responses in self.groups)

    @cached_property
    def masks(self) -> dict[tuple[int, int], torch.Tensor]:
        """By (prompt's, response's length): [R, P + R], where a response's query may look. One byte a cell."""
        masks = {}
        for prompt, responses in self.groups:
            for length in set(responses):
                mask = torch.ones(length, prompt + length, dtype=torch.bool, device=self.device)
                masks[prompt, length] = mask.tril_(prompt)
        return masks

    @cached_property
    def varlen(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, int]:
        """For a kernel that takes sequences of unequal lengths end to end, causal and aligned at the bottom right.

        Queries are the packed row as it is, in the sequences prompt, response 1, ...; keys are the row's tokens at
        the returned index: for a response its prompt again, then itself.

        Returns:
            index of the keys int64, cumulative lengths of queries and keys int32, longest query and key.
        """
        index, queries, keys, start = [], [], [], 0
        for prompt, responses in self.groups:
            own = torch.arange(start, start + prompt)
            index.append(own)
            queries.append(prompt)
            keys.append(prompt)
            start += prompt
            for length in responses:
                index += [own, torch.arange(start, start + length)]
                queries.append(length)
                keys.append(prompt + length)
                start += length
        cumulative = [torch.tensor([0, *lengths]).cumsum(0).to(self.device, torch.int32) for lengths in (queries, keys)]
        return torch.cat(index).to(self.device), *cumulative, max(queries), max(keys)

    @cached_property
    def flex(self) -> Any:
        """The mask of the whole packed row, as flex_attention takes it."""
        from torch.nn.attention.flex_attention import create_block_mask

        groups, parts = [], []
        for number, (prompt, responses) in enumerate(self.groups):
            for part, length in enumerate([prompt, *responses]):
                groups += [number] * length
                parts += [part] * length
        group_S, part_S = (torch.tensor(numbers, device=self.device) for numbers in (groups, parts))

        def allowed(_b: Any, _h: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            own = (part_S[key] == 0) | (part_S[key] == part_S[query])
            return (key <= query) & (group_S[key] == group_S[query]) & own

        return create_block_mask(allowed, None, None, self.tokens, self.tokens, device=str(self.device))


_layout: PackedLayout | None = None


def set_layout(layout: PackedLayout | None) -> None:
    """The layout of the packed row that the model sees from now on, in forward and backward; None where there is none.

    A global of the process, as autograd's threads must see it too: one model at a time.
    """
    global _layout
    _layout = layout


def current_layout() -> PackedLayout | None:
    """What ``set_layout`` was told last."""
    return _layout


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """In the signature of transformers' attention functions; the mask comes from the layout.

    Cost and memory per token are those of the unpacked rows: no score between two responses is ever computed.

    Args:
        query, key, value: [1, heads, S, D], with fewer heads in key and value where the model shares them.
        attention_mask: None; the model makes no mask for a function that transformers does not know.

    Returns:
        [1, S, heads, D] and None.

    Raises:
        RuntimeError: no layout, or one of another length.
    """
    layout = _layout
    if layout is None or query.shape[0] != 1 or query.shape[2] != layout.tokens:
        raise RuntimeError(
            f"packed groups: attention over {tuple(query.shape)} has "
            + ("no layout" if layout is None else f"a layout of 1 x {layout.tokens} tokens")
        )
    kernel = flash_kernel() if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) else None
    if kernel is not None:
        return by_varlen(kernel, layout, query, key, value, dropout, scaling), None
    return by_blocks(module, layout, query, key, value, dropout, scaling), None


def by_blocks(module, layout, query, key, value, dropout, scaling) -> torch.Tensor:
    """One call of transformers' sdpa per prompt and per response."""
    settings = {"dropout": dropout, "scaling": scaling}
    parts, start = [], 0
    for prompt, responses in layout.groups:
        own = slice(start, start + prompt)
        prompt_key, prompt_value = key[:, :, own], value[:, :, own]
        parts.append(
            sdpa_attention_forward(
                module, query[:, :, own], prompt_key, prompt_value, None, is_causal=True, **settings
            )[0]
        )
        start += prompt
        for length in responses:
            own = slice(start, start + length)
            parts.append(
                sdpa_attention_forward(
                    module,
                    query[:, :, own],
                    torch.cat([prompt_key, key[:, :, own]], dim=2),
                    torch.cat([prompt_value, value[:, :, own]], dim=2),
                    layout.masks[prompt, length],
                    **settings,
                )[0]
            )
            start += length
    return torch.cat(parts, dim=1)


def by_varlen(kernel, layout, query, key, value, dropout, scaling) -> torch.Tensor:
    """One call of flash-attn's kernel for sequences of unequal lengths; a prompt's keys are repeated by index."""
    index, queries, keys, longest_query, longest_key = layout.varlen
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    return kernel(
        query.contiguous(),
        key[index],
        value[index],
        cu_seqlens_q=queries,
        cu_seqlens_k=keys,
        max_seqlen_q=longest_query,
        max_seqlen_k=longest_key,
        dropout_p=dropout,
        softmax_scale=scaling,
        causal=True,
    )[None]


def by_flex(kernel, layout, query, key, value, scaling) -> torch.Tensor:
    """One call of torch's flex_attention (compiled, on a GPU) with a mask by blocks of the packed row; no dropout.

    Not chosen by ``packed_attention`` until it has been seen to win: recipes/gpu_check measures it.
    """
    shared = query.shape[1] != key.shape[1]
    return kernel(query, key, value, block_mask=layout.flex, scale=scaling, enable_gqa=shared).transpose(1, 2)


def flash_kernel() -> Any:
    """flash-attn's varlen function, or None. From 2.1 on it aligns the causal mask at the bottom right."""
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_greater_or_equal

    if not is_flash_attn_2_available() or not is_flash_attn_greater_or_equal("2.1.0"):
        return None
    from flash_attn import flash_attn_varlen_func

    return flash_attn_varlen_func


def layout_of(groups: Sequence[tuple[int, Sequence[int]]], device: torch.device | str) -> PackedLayout:
    """A layout from the prompt's length and the responses' lengths of each group."""
    return PackedLayout(tuple((prompt, tuple(lengths)) for prompt, lengths in groups), torch.device(device))


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
