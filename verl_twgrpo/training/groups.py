"""The groups of a batch: which rows they have, and the record of each that weightings, metrics and the dump share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from transfer_queue import KVBatchMeta

from verl_twgrpo.algorithm.weightings import Group
from verl_twgrpo.rows import final_rows, parse_key, rows_by_group


def group_of_row(batch: KVBatchMeta) -> list[str | None]:
    """The group (uid) of every row by its key; None for verl's synthetic padding rows."""
    return [
        None if tag.get("is_padding", False) else parse_key(key).uid
        for key, tag in zip(batch.keys, batch.tags, strict=True)
    ]


def final_outputs(keys: Sequence[str]) -> list[int]:
    """For each row the row of its rollout's last output, as verl's GRPO takes it (verl/trainer/ppo/v1/utils.py)."""
    return final_rows(parse_key(key) for key in keys)


def mixtures_of_outputs(keys: Sequence[str]) -> list[int] | None:
    """By row the number of the mixture that it is in; None where each rollout has one output and prompts tell it.

    Only the last output of a rollout is in its group's mixture; each of the others is in one of its own.
    """
    finals = final_outputs(keys)
    if all(final == row for row, final in enumerate(finals)):
        return None
    numbers: dict[str, int] = {}
    return [
        numbers.setdefault(parse_key(key).uid, len(numbers)) if final == row else len(keys) + row
        for row, (key, final) in enumerate(zip(keys, finals, strict=True))
    ]


def groups_of_batch(
    batch: KVBatchMeta, masks: Sequence[torch.Tensor], step: int = 0, numbers: Mapping[str, int] | None = None
) -> list[Group]:
    """The groups of a step, without columns yet.

    Padding rows, rows without a token of the model's own, and all but the last output of a rollout are in no group.

    Args:
        masks: response mask of each row, [L].
        numbers: place of each group's prompt in the step.
    """
    uids, finals = group_of_row(batch), final_outputs(batch.keys)
    weighed = [
        uid if final == row and masks[row].any() else None
        for row, (uid, final) in enumerate(zip(uids, finals, strict=True))
    ]
    return [
        Group(uid, rows, [masks[row].bool() for row in rows], step=step, number=(numbers or {}).get(uid, number))
        for number, (uid, rows) in enumerate(rows_by_group(weighed).items())
    ]
