"""One compact file per step with what figures and heat maps need, written beside the training, not in its way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from transfer_queue import KVBatchMeta

from verl_twgrpo.algorithm.weightings import Group
from verl_twgrpo.algorithm.weightings.base import DIVERGENCE
from verl_twgrpo.files import atomic_write, write_text
from verl_twgrpo.rows import as_list

logger = logging.getLogger(__name__)

# One row per response. Lists are by response token; divergence is null where no head pass ran. Columns that a weighting
# reads beyond these follow under their own names.
SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("group", pa.string()),
        ("id", pa.string()),
        ("ground_truth", pa.string()),
        ("reward", pa.float32()),
        ("accuracy", pa.float32()),
        ("soft_accuracy", pa.float32()),
        ("format", pa.float32()),
        ("data_source", pa.string()),
        ("question", pa.string()),
        ("task", pa.string()),
        ("scores", pa.map_(pa.string(), pa.float32())),  # every number that the task reports
        ("text", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("tokens", pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        ("weight", pa.list_(pa.float32())),
        ("divergence", pa.list_(pa.float32())),
        ("entropy", pa.list_(pa.float32())),
        ("log_prob", pa.list_(pa.float32())),
        ("rollout_log_prob", pa.list_(pa.float32())),  # null where the rollout gave none
        ("advantage", pa.list_(pa.float32())),
        ("own", pa.list_(pa.bool_())),  # null where all tokens are the model's own
    ]
)


OWN_TOKENS = "own"
# a key of the file's metadata: columns of the head, where the head pass ran
VOCABULARY_SIZE = b"vocabulary_size"

TOKEN_FIELDS = {"entropy": "entropy", "log_prob": "old_log_probs", "advantage": "advantages"}
ROLLOUT_LOG_PROBS = "rollout_log_probs"
SETTINGS = "settings.yaml"
"""The run's whole configuration, beside its steps; without what is handed to other processes as environment."""


class StepDump:
    """Writes ``step_000012.parquet`` into a folder, step after step.

    A file that cannot be written (disk full, no permission) is said once; training goes on.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._failed = False

    def submit(self, trainer: Any, batch: KVBatchMeta, groups: Sequence[Group]) -> Future:
        """Write the step in verl's dump thread; the tensors are fetched before it returns.

        With ``parameter_sync_step`` above 1 a step has several batches: later ones join the file of the first.
        """
        rows = [row for group in groups for row in group.rows]
        keys = [batch.keys[row] for row in rows]
        fields = ["responses", *TOKEN_FIELDS.values(), "rm_scores", "reward_model", "extra_fields", "extra_info"]
        if trainer.config.actor_rollout_ref.rollout.calculate_log_probs:
            fields.append(ROLLOUT_LOG_PROBS)
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=fields)
        assert self._folder is not None, "asked for no dump"
        path = Path(self._folder) / f"step_{trainer.global_steps:06d}.parquet"
        joins = getattr(trainer, "local_trigger_step", 0) > 0
        return trainer._dump_executor.submit(
            self._write, path, trainer.global_steps, data, list(groups), trainer.tokenizer, joins
        )

    def describe(self, config: DictConfig) -> None:
        """Write the run's settings beside its steps, for whoever compares runs later."""
        if self._folder is not None:
            self._guarded(write_settings, Path(self._folder) / SETTINGS, config)

    def _write(self, path: Path, *args: Any) -> None:
        self._guarded(write_step, path, *args)

    def _guarded(self, write: Callable[..., None], path: Path, *args: Any) -> None:
        try:
            write(path, *args)
        except OSError as error:
            if not self._failed:
                self._failed = True
                logger.warning(
                    "algorithm.tw_grpo.dump_dir: %s could not be written (%s); training goes on, the file is missing "
                    "in the report, and further failures are not reported",
                    path,
                    error,
                )


def write_step(path: Path, step: int, data: Any, groups: list[Group], tokenizer: Any, joins: bool = False) -> None:
    """One step's file. With ``joins`` its rows follow those that the file has. Raises ``OSError`` if it cannot."""
    table = pa.Table.from_pylist(list(_rows(step, data, groups, tokenizer)), schema=_schema(groups))
    if joins and path.is_file():
        table = pa.concat_tables([pq.read_table(path), table], promote_options="permissive")
    with atomic_write(path) as part:
        pq.write_table(table, part, compression="zstd")


def write_settings(path: Path, config: DictConfig) -> None:
    """The configuration as YAML. Environment variables for Ray's workers, where keys of services stand, are left out.

    Raises:
        OSError: if it cannot be written.
    """
    settings = OmegaConf.masked_copy(config, [key for key in config if key != "ray_kwargs"])
    try:
        text = OmegaConf.to_yaml(settings, resolve=True)
    except OmegaConfBaseException:  # an interpolation of a part that this run does not use leads nowhere
        text = OmegaConf.to_yaml(settings)
    write_text(path, text)


def _schema(groups: Sequence[Group]) -> pa.Schema:
    extra = sorted({name for group in groups for name in _further(group.columns)})
    size = next((group.vocabulary_size for group in groups if group.vocabulary_size is not None), None)
    metadata = None if size is None else {VOCABULARY_SIZE: str(size)}
    return pa.schema([*SCHEMA, *(pa.field(name, pa.list_(pa.float32())) for name in extra)], metadata)


def _further(columns: Mapping[str, Any]) -> list[str]:
    """Columns that a weighting read and that are not in a file anyway."""
    return [name for name in columns if name != DIVERGENCE and name not in TOKEN_FIELDS.values()]


def _rows(step: int, data: Any, groups: Sequence[Group], tokenizer: Any) -> Any:
    columns = {name: list(data[field].unbind()) for name, field in TOKEN_FIELDS.items()}
    rolled_out = data.get(ROLLOUT_LOG_PROBS, None)
    rollout_log_probs = None if rolled_out is None else rolled_out.unbind()
    responses, rewards = list(data["responses"].unbind()), data["rm_scores"].sum(dim=1).tolist()
    extras, truths, infos = (as_list(data[name]) for name in ("extra_fields", "reward_model", "extra_info"))
    row = -1
    for group in groups:
        for response, weights_L in enumerate(group.weights):
            row += 1
            ids = responses[row].tolist()
            scores = (extras[row] or {}).get("reward_extra_info", {})
            divergence = group.columns.get(DIVERGENCE)
            yield {
                "step": step,
                "group": group.uid,
                "id": str((infos[row] or {}).get("id", "")),
                "ground_truth": str(truths[row].get("ground_truth", "")),
                "reward": rewards[row],
                **{name: scores.get(name) for name in ("accuracy", "soft_accuracy", "format")},
                "data_source": scores.get("benchmark"),
                "question": (infos[row] or {}).get("question"),
                "task": scores.get("task"),
                "scores": [(name, value) for name, value in scores.items() if isinstance(value, bool | int | float)],
                "text": tokenizer.decode(ids, skip_special_tokens=True),
                "token_ids": ids,
                "tokens": [tokenizer.decode([token]) for token in ids],
                "weight": weights_L.tolist(),
                "divergence": None if divergence is None else divergence[response].tolist(),
                **{name: column[row].tolist() for name, column in columns.items()},
                OWN_TOKENS: None if group.masks[response].all() else group.masks[response].tolist(),
                "rollout_log_prob": None if rollout_log_probs is None else rollout_log_probs[row].tolist(),
                **{name: group.columns[name][response].tolist() for name in _further(group.columns)},
            }
