"""One compact file a step with what figures and heat maps need, written beside the training, not in its way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import transfer_queue as tq
from transfer_queue import KVBatchMeta

from .columns import as_list
from .metrics import WeightedGroup

# One row a response. Lists are by response token.
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
        ("text", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("tokens", pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        ("weight", pa.list_(pa.float32())),
        ("divergence", pa.list_(pa.float32())),
        ("entropy", pa.list_(pa.float32())),
        ("log_prob", pa.list_(pa.float32())),
        ("advantage", pa.list_(pa.float32())),
    ]
)


def dump_step(trainer: Any, batch: KVBatchMeta, groups: Sequence[WeightedGroup]) -> Future:
    """Write ``dump_dir/step_000012.parquet`` in verl's dump thread; the tensors are fetched before it returns."""
    rows = [row for group in groups for row in group.rows]
    keys = [batch.keys[row] for row in rows]
    fields = [
        "responses", "entropy", "old_log_probs", "advantages", "rm_scores", "reward_model", "extra_fields", "extra_info"
    ]  # fmt: skip
    data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=fields)
    path = Path(trainer.tw_grpo.dump_dir) / f"step_{trainer.global_steps:06d}.parquet"
    return trainer._dump_executor.submit(_write, path, trainer.global_steps, data, list(groups), trainer.tokenizer)


def _write(path: Path, step: int, data: Any, groups: list[WeightedGroup], tokenizer: Any) -> None:
    columns = {name: list(data[name].unbind()) for name in ("responses", "entropy", "old_log_probs", "advantages")}
    rewards = data["rm_scores"].sum(dim=1).tolist()
    extras, truths, infos = (as_list(data[name]) for name in ("extra_fields", "reward_model", "extra_info"))
    of_row = [(group, length) for group in groups for length in group.lengths_G]
    table = []
    for row, (group, length) in enumerate(of_row):
        ids = columns["responses"][row].tolist()
        scores = (extras[row] or {}).get("reward_extra_info", {})
        table.append(
            {
                "step": step,
                "group": group.uid,
                "id": str((infos[row] or {}).get("id", "")),
                "ground_truth": str(truths[row].get("ground_truth", "")),
                "reward": rewards[row],
                **{name: scores.get(name) for name in ("accuracy", "soft_accuracy", "format")},
                "text": tokenizer.decode(ids, skip_special_tokens=True),
                "token_ids": ids,
                "tokens": [tokenizer.decode([token]) for token in ids],
                "weight": group.weights_T[:length].tolist(),
                "divergence": group.divergence_T[:length].tolist(),
                "entropy": columns["entropy"][row].tolist(),
                "log_prob": columns["old_log_probs"][row].tolist(),
                "advantage": columns["advantages"][row].tolist(),
            }
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    pq.write_table(pa.Table.from_pylist(table, schema=SCHEMA), part, compression="zstd")
    os.replace(part, path)
