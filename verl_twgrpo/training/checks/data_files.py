"""The data files: there, readable, and with the columns that verl reads."""

from __future__ import annotations

import pyarrow.parquet as pq
from omegaconf import DictConfig

from .parquet_files import column_names, data_files, tables
from .registry import check


@check(reads_files=True)
def check_data_files_exist(config: DictConfig) -> None:
    absent = list(dict.fromkeys(what for what, path in data_files(config) if not path.is_file()))
    if absent:
        raise FileNotFoundError(f"{' and '.join(absent)}: no such file; make it with `verl-twgrpo data convert`")


@check(reads_files=True)
def check_columns(config: DictConfig) -> None:
    for what, path in tables(config):
        names = column_names(what, path)
        for column in (config.data.prompt_key, "data_source", "reward_model"):
            if column not in names:
                raise ValueError(f"{what}: column {column!r} is missing (it has {', '.join(names)})")
        if not pq.read_metadata(path).num_rows:
            raise ValueError(f"{what}: it has no rows")
