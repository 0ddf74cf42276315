"""Which of a run's dumps can be drawn: a damaged file, or one of another make, is named and left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow
import pyarrow.compute as pc
import pyarrow.parquet
import pyarrow.types as kinds


def _list_of(kind: Callable[[pyarrow.DataType], bool]) -> Callable[[pyarrow.DataType], bool]:
    return lambda type: kinds.is_list(type) and kind(_plain(type.value_type))


# the columns that figures and heat maps read (training/dump.py writes them): what each holds
COLUMNS = {
    "step": ("whole numbers", kinds.is_integer),
    "group": ("texts", kinds.is_string),
    "id": ("texts", kinds.is_string),
    "ground_truth": ("texts", kinds.is_string),
    "reward": ("numbers", kinds.is_floating),
    "accuracy": ("numbers", kinds.is_floating),
    "soft_accuracy": ("numbers", kinds.is_floating),
    "format": ("numbers", kinds.is_floating),
    "text": ("texts", kinds.is_string),
    "tokens": ("lists of texts", _list_of(kinds.is_string)),
    "weight": ("lists of numbers", _list_of(kinds.is_floating)),
    "divergence": ("lists of numbers", _list_of(kinds.is_floating)),
    "entropy": ("lists of numbers", _list_of(kinds.is_floating)),
    "log_prob": ("lists of numbers", _list_of(kinds.is_floating)),
}
# as above, of dumps that have them
OPTIONAL = {name: ("lists of numbers", _list_of(kinds.is_floating)) for name in ("advantage", "rollout_log_prob")}
# null where the reward or the run has none; a divergence is null where no head pass ran
NULLABLE = ("id", "ground_truth", "accuracy", "soft_accuracy", "format", "divergence", *OPTIONAL)
BY_TOKEN = ("tokens", "weight", "divergence", "entropy", "log_prob")


is_numbers_by_token = _list_of(kinds.is_floating)
"""Whether a column's type is that of a signal that shades tokens."""


def sound_dumps(dumps: Mapping[int, Path], missing: list[str]) -> dict[int, Path]:
    """The dumps, by step, that can be read; what is wrong with each of the others goes into ``missing``."""
    sound = {}
    for step, path in dumps.items():
        problem = dump_problem(path, step)
        if problem:
            missing.append(f"{path}: {problem}")
        else:
            sound[step] = path
    return sound


def dump_problem(path: Path, step: int) -> str:
    """What keeps a dump from being drawn, with the column; "" for a sound one. step: that of its name."""
    try:
        names = pyarrow.parquet.read_schema(path).names
        absent = [name for name in COLUMNS if name not in names]
        if absent:
            return f"column {', '.join(absent)} is missing: not a dump of token weights"
        columns = COLUMNS | {name: OPTIONAL[name] for name in OPTIONAL if name in names}
        table = pyarrow.parquet.read_table(path, columns=list(columns), partitioning=None)
    except (pyarrow.ArrowException, OSError) as error:
        return f"not a parquet file that can be read ({str(error).strip().splitlines()[0]})"
    for name, (what, right) in columns.items():
        column = table[name]
        if not right(_plain(column.type)) and not (name in NULLABLE and kinds.is_null(column.type)):
            return f"column {name}: need {what}, got {column.type}"
        if name not in NULLABLE and column.null_count:
            return f"column {name}: {column.null_count} rows without a value"
    for name in BY_TOKEN:
        column = table[name]
        if kinds.is_null(column.type):
            continue
        # the values, not the lists: a null among numbers
        if column.combine_chunks().flatten().null_count:
            return f"column {name}: a token without a value"
        lengths = pc.list_value_length(column)
        if not pc.all(pc.equal(lengths, pc.list_value_length(table["tokens"]))).as_py():
            return f"column {name}: a response has another number of values than tokens"
    if not table.num_rows:
        return "it has no rows"
    steps = pc.unique(table["step"]).to_pylist()
    if steps != [step]:
        return f"column step: the file is named after step {step}, its rows are of step {', '.join(map(str, steps))}"
    return ""


def _plain(kind: pyarrow.DataType) -> pyarrow.DataType:
    return kind.value_type if kinds.is_dictionary(kind) else kind
