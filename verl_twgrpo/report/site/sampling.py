"""Which groups of a run a page shows: all, or as many a step as its size allows, the same questions in all runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet

BYTES_PER_TOKEN = 32
"""Of a step's data file, with some to spare: what a token's text and its signals take."""
BYTES_PER_GROUP = 2_500
"""Question, prompt and what is said of each response."""
PROBED_STEPS = 5


@dataclass(frozen=True)
class Sample:
    """per_step: groups of a step, None for all. every: of this many steps one, counted from the last."""

    per_step: int | None = None
    every: int = 1


def plan_sample(paths: Sequence[Path], budget: int) -> Sample:
    """As many groups as fit into ``budget`` bytes, by what some of the steps hold."""
    probed = [_count(paths[k * len(paths) // PROBED_STEPS]) for k in range(min(PROBED_STEPS, len(paths)))]
    probed = [counts for counts in probed if counts[0]]
    if not probed:
        return Sample()
    groups = max(groups for groups, _ in probed)
    bytes_per_group = BYTES_PER_GROUP + BYTES_PER_TOKEN * max(tokens / groups for groups, tokens in probed)
    fit = budget / bytes_per_group / len(paths)
    if fit >= groups:
        return Sample()
    return Sample(max(1, int(fit)), 1 if fit >= 1 else round(1 / fit + 0.5))


def shown_steps(steps: Sequence[int], sample: Sample) -> list[int]:
    """The steps that have data of their own, in order; the last one always."""
    return list(reversed(list(reversed(steps))[:: sample.every]))


def shown_groups(names: Mapping[str, str], per_step: int | None) -> list[str]:
    """Of the groups of a step (group -> its question's id) those that are shown, in their order.

    By a hash of the question: not chosen by what happened in them, and the same ones in every run on the same data.
    """
    if per_step is None or len(names) <= per_step:
        return list(names)
    drawn = sorted(names, key=lambda group: hashlib.sha256((names[group] or group).encode()).digest())[:per_step]
    return [group for group in names if group in set(drawn)]


def _count(path: Path) -> tuple[int, int]:
    """Groups and tokens of a step's dump; (0, 0) if it cannot be read."""
    try:
        groups = pyarrow.parquet.read_table(path, columns=["group"])["group"]
        metadata = pyarrow.parquet.read_metadata(path)
    except (OSError, pyarrow.ArrowInvalid):
        return 0, 0
    places = [k for k in range(metadata.num_columns) if metadata.schema.column(k).path.startswith("weight.")]
    tokens = sum(
        metadata.row_group(part).column(place).num_values for part in range(metadata.num_row_groups) for place in places
    )
    return len(groups.unique()), tokens
