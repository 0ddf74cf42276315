"""Rows that share a prompt: put into micro-batches together, and laid out in one packed row. Needs torch alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from verl_twgrpo.training.engines.packed_attention import PackedLayout, layout_of


@dataclass(frozen=True)
class Lengths:
    """Tokens of each row's prompt and response."""

    prompts: list[int]
    responses: list[int]


@dataclass(frozen=True)
class PackedRows:
    """Where the tokens of a micro-batch lie in one packed row.

    layout: as the attention reads it. first_rows: by group, the row that lends its prompt. token_S: the packed row's
    tokens as indices into the rows laid end to end. predicts_N: the positions in the packed row that predict the N
    response tokens, in the order of the rows. target_N: those tokens as indices into the rows laid end to end; the
    index before is where verl keeps a token's log-prob. lengths: of the rows.
    """

    layout: PackedLayout
    first_rows: list[int]
    token_S: torch.Tensor
    predicts_N: torch.Tensor
    target_N: torch.Tensor
    lengths: Lengths


def pack(prompt_of_row: Sequence[int], lengths: Lengths, device: torch.device | str) -> PackedRows:
    """Lay out rows group after group, groups in the order of their first rows.

    Args:
        prompt_of_row: as ``shared_prompts`` numbers them.
        lengths: of the rows.
        device: of the indices.
    """
    rows_of: dict[int, list[int]] = {}
    for row, number in enumerate(prompt_of_row):
        rows_of.setdefault(number, []).append(row)
    starts = [0]
    for prompt, response in zip(lengths.prompts, lengths.responses, strict=True):
        starts.append(starts[-1] + prompt + response)
    tokens, predicts, place = [], [torch.empty(0)] * len(prompt_of_row), 0
    for rows in rows_of.values():
        prompt = lengths.prompts[rows[0]]
        tokens.append(torch.arange(starts[rows[0]], starts[rows[0]] + prompt))
        place += prompt
        last_of_prompt = torch.tensor([place - 1])
        for row in rows:
            response = lengths.responses[row]
            tokens.append(torch.arange(starts[row + 1] - response, starts[row + 1]))
            predicts[row] = torch.cat([last_of_prompt, torch.arange(place, place + response - 1)])
            place += response
    targets = [torch.arange(end - response, end) for end, response in zip(starts[1:], lengths.responses, strict=True)]
    groups = [(lengths.prompts[rows[0]], [lengths.responses[row] for row in rows]) for rows in rows_of.values()]
    token_S, predicts_N, target_N = (torch.cat(index).to(device) for index in (tokens, predicts, targets))
    first_rows = [rows[0] for rows in rows_of.values()]
    return PackedRows(layout_of(groups, device), first_rows, token_S, predicts_N, target_N, lengths)


def packed_tokens(rows: Sequence[int], prompt_of_row: Sequence[int], lengths: Lengths) -> int:
    """Tokens of the packed row that these rows make."""
    prompts = {prompt_of_row[row]: lengths.prompts[row] for row in rows}
    return sum(prompts.values()) + sum(lengths.responses[row] for row in rows)


def most_tokens(lengths: Lengths, rows: int) -> int:
    """Tokens of the ``rows`` longest rows: what a micro-batch of so many rows may hold unpacked."""
    whole = [prompt + response for prompt, response in zip(lengths.prompts, lengths.responses, strict=True)]
    return sum(sorted(whole, reverse=True)[:rows])


def micro_batches(prompt_of_row: Sequence[int], lengths: Lengths, tokens: int) -> list[list[int]]:
    """Rows of each micro-batch: at most ``tokens`` packed tokens, but a row at least.

    Groups stay whole; one that is larger is cut, and each part runs the prompt.
    """
    groups: dict[int, list[int]] = {}
    for row, number in enumerate(prompt_of_row):
        groups.setdefault(number, []).append(row)
    batches: list[list[int]] = []

    def size(of: Sequence[int]) -> int:
        return packed_tokens(of, prompt_of_row, lengths)

    parts: list[list[int]] = []
    for group in groups.values():
        part: list[int] = []
        for row in group:
            if part and size([*part, row]) > tokens:
                parts.append(part)
                part = []
            part.append(row)
        parts.append(part)
    # first fit, largest first
    for part in sorted(parts, key=size, reverse=True):
        fitting = next((batch for batch in batches if size(batch) + size(part) <= tokens), None)
        if fitting is None:
            batches.append(list(part))
        else:
            fitting.extend(part)
    return [sorted(batch) for batch in batches]


def split_to(count: int, batches: list[list[int]], prompt_of_row: Sequence[int], lengths: Lengths) -> list[list[int]]:
    """At least ``count`` micro-batches, by halving the largest: between groups if it has several, else within one.

    Raises:
        ValueError: fewer rows than ``count``.
    """
    batches = [list(batch) for batch in batches]
    while len(batches) < count:
        divisible = [batch for batch in batches if len(batch) > 1]
        if not divisible:
            raise ValueError(f"packed groups: {len(batches)} rows cannot make {count} micro-batches")
        largest = max(divisible, key=lambda batch: packed_tokens(batch, prompt_of_row, lengths))
        largest_ordered = sorted(largest, key=lambda row: (prompt_of_row[row], row))
        middle = len(largest) // 2
        between = [
            k for k in range(1, len(largest)) if len({prompt_of_row[r] for r in largest_ordered[k - 1 : k + 1]}) > 1
        ]
        cut = min(between, key=lambda k: abs(k - middle)) if between else middle
        position = batches.index(largest)
        batches[position : position + 1] = [sorted(largest_ordered[:cut]), sorted(largest_ordered[cut:])]
    return batches
