"""The groups of a step as its dump holds them, with the columns that weightings read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
from omegaconf import OmegaConf

from verl_twgrpo.algorithm.weightings import Group
from verl_twgrpo.rows import rows_by_group
from verl_twgrpo.training.checks.settings import read_settings
from verl_twgrpo.training.dump import OWN_TOKENS, SETTINGS, TOKEN_FIELDS, VOCABULARY_SIZE
from verl_twgrpo.training.settings import TWGRPOConfig

# columns of a dump that are no signal by token
OTHERS = {"tokens", "token_ids", "weight", OWN_TOKENS}


@dataclass(frozen=True)
class Stored:
    """A group of a step: what weightings are given, the weights that it was trained with, and its rows of the dump."""

    step: int
    group: Group
    trained: list[torch.Tensor]
    rows: list[dict[str, Any]]


def run_settings(folder: Path) -> TWGRPOConfig | None:
    """``algorithm.tw_grpo`` of the run that wrote the dump; None where its settings are not there, or are another's."""
    path = folder / SETTINGS
    try:
        node = OmegaConf.select(OmegaConf.load(path), "algorithm.tw_grpo")
    except OSError:
        return None
    return None if node is None else read_settings(node)


def stored_groups(path: Path, settings: TWGRPOConfig | None) -> list[Stored]:
    """The groups of one step's file. ``settings``: the run's; without them its weights are taken for outside ones."""
    table = pyarrow.parquet.read_table(path)
    metadata = table.schema.metadata or {}
    vocabulary_size = int(metadata[VOCABULARY_SIZE]) if VOCABULARY_SIZE in metadata else None
    signals = [
        field.name
        for field in table.schema
        if pyarrow.types.is_list(field.type)
        and pyarrow.types.is_floating(field.type.value_type)
        and field.name not in OTHERS
    ]
    rows, stored = table.to_pylist(), []
    for number, (uid, members) in enumerate(rows_by_group(row["group"] for row in rows).items()):
        of_group = [rows[member] for member in members]
        own = [
            torch.tensor(row.get(OWN_TOKENS) or [True] * len(row["token_ids"]), dtype=torch.bool) for row in of_group
        ]
        trained = [torch.tensor(row["weight"]) for row in of_group]
        columns = {}
        for name in signals:
            if all(row[name] is not None for row in of_group):
                verls = TOKEN_FIELDS.get(name, name)
                columns[verls] = [torch.tensor([_number(value) for value in row[name]]) for row in of_group]
        if "advantages" in columns and (settings is None or settings.placement == "outside"):
            columns["advantages"] = [
                _unweighted(advantages_L, weights_L)
                for advantages_L, weights_L in zip(columns["advantages"], trained, strict=True)
            ]
        group = Group(uid, members, own, columns, of_group[0]["step"], number, vocabulary_size)
        stored.append(Stored(of_group[0]["step"], group, trained, of_group))
    return stored


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _unweighted(advantages_L: torch.Tensor, weights_L: torch.Tensor) -> torch.Tensor:
    """Advantages before their weights: a response has one for all of its tokens, some of which may weigh 0."""
    heavy = weights_L > 0
    if not heavy.any():
        return torch.full_like(advantages_L, math.nan)
    place = weights_L.argmax()
    return torch.where(heavy, advantages_L / weights_L, advantages_L[place] / weights_L[place])
