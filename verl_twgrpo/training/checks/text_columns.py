"""What a weighting reads of a row's ``extra_info``: there, and of the right form."""

from __future__ import annotations

from omegaconf import DictConfig

from .parquet_files import columns, tables
from .registry import check
from .settings import read_settings


@check(runs="weighted", reads_files=True)
def check_text_columns(config: DictConfig) -> None:
    weighting = read_settings(config.algorithm.tw_grpo).make_weighting()
    for column in weighting.text_columns.values():
        for what, path in tables(config):
            if not what.startswith("data.train_files="):
                continue
            known = 0
            for number, row in enumerate(columns(what, path, ["extra_info"])):
                value = (row["extra_info"] or {}).get(column.field)
                try:
                    known += bool(column.read(value))
                except ValueError as error:
                    raise ValueError(f"{what}: row {number}: extra_info.{column.field}: {error}") from None
            if not known:
                raise ValueError(
                    f"{what}: no row has extra_info.{column.field}, which algorithm.tw_grpo.weighting={weighting.name} "
                    "reads; write it into the file, or choose another weighting"
                )
