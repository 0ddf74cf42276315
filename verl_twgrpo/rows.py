"""How verl names a row of a batch, which rows belong together, and how a column of a batch is read row by row."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple, TypeVar

H = TypeVar("H", bound=Hashable)


class RowKey(NamedTuple):
    """A row's key ``{uid}_{session}_{index}``: its prompt, which of the n rollouts, which of that rollout's outputs.

    An agent loop may return several outputs for one rollout (verl/trainer/ppo/v1/agent_loop_tq.py).
    """

    uid: str
    session: int
    output: int


def parse_key(key: str) -> RowKey:
    """Raises ``ValueError`` for a key that is not ``{uid}_{session}_{index}``."""
    parts = key.rsplit("_", 2)
    if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        raise ValueError(f"row key {key!r}: expected {{uid}}_{{session}}_{{index}}")
    return RowKey(parts[0], int(parts[1]), int(parts[2]))


def rows_by_group(group_of_row: Iterable[H | None]) -> dict[H, list[int]]:
    """The rows of each group, groups in the order of their first row; rows of group None are in none."""
    rows: dict[H, list[int]] = {}
    for row, group in enumerate(group_of_row):
        if group is not None:
            rows.setdefault(group, []).append(row)
    return rows


def final_rows(keys: Iterable[RowKey]) -> list[int]:
    """For each row the row that holds its rollout's last output; itself where a rollout has but one."""
    keys = list(keys)
    last: dict[tuple[str, int], int] = {}
    for row, key in enumerate(keys):
        known = last.setdefault(key[:2], row)
        if keys[known].output < key.output:
            last[key[:2]] = row
    return [last[key[:2]] for key in keys]


def as_list(column: Any) -> list[Any]:
    """One Python object per row; a column comes as a list, a NonTensorStack or a numpy array, as its way here went."""
    return column.tolist() if hasattr(column, "tolist") else list(column)
