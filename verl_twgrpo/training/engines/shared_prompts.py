"""Which rows of a batch have their whole prompt in common: tokens, positions, images and videos."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import NonTensorData, TensorDict

from verl_twgrpo.rows import as_list
from verl_twgrpo.training.engines.packing import Lengths


def row_lengths(data: TensorDict) -> Lengths:
    """Prompt and response lengths of a batch of jagged rows (prompt and response, nothing else)."""
    responses = data["responses"].offsets().diff()
    return Lengths((data["input_ids"].offsets().diff() - responses).tolist(), responses.tolist())


def shared_prompts(data: TensorDict) -> list[int]:
    """A number by row; rows of one number have the same group, prompt, prompt positions, images and videos.

    Rows of a group whose prompts differ in anything get numbers of their own.
    """
    prompts = row_lengths(data).prompts
    tokens, positions = data["input_ids"].unbind(), data["position_ids"].unbind()
    media = [_plain(inputs) for inputs in data.get("multi_modal_inputs", [None] * len(prompts))]
    numbers: list[int] = []
    firsts_of: dict[Any, list[int]] = {}
    for row, (uid, prompt) in enumerate(zip(as_list(data["uid"]), prompts, strict=True)):
        firsts = firsts_of.setdefault(uid, [])
        for first in firsts:
            if (
                prompts[first] == prompt
                and torch.equal(tokens[first][:prompt], tokens[row][:prompt])
                and torch.equal(positions[first][..., :prompt], positions[row][..., :prompt])
                and _same(media[first], media[row])
            ):
                numbers.append(numbers[first])
                break
        else:
            numbers.append(len(set(numbers)))
            firsts.append(row)
    return numbers


def _plain(inputs: Any) -> dict[str, Any]:
    inputs = inputs.data if isinstance(inputs, NonTensorData) else inputs
    return {key: value for key, value in (inputs or {}).items() if value is not None}


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    if a.keys() != b.keys():
        return False
    return all(
        torch.equal(value, b[key]) if isinstance(value, torch.Tensor) else value == b[key] for key, value in a.items()
    )
