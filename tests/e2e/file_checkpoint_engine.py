"""A checkpoint engine that hands parameters over in a file: separate_async refuses verl's `naive`, others need GPUs.

``actor_rollout_ref.rollout.checkpoint_engine.custom_backend_module`` names this module, ``engine_kwargs.file.folder``
the folder.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import torch
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry
from verl.workers.rollout.utils import ensure_async_iterator


@CheckpointEngineRegistry.register("file")
class FileCheckpointEngine(CheckpointEngine):
    """Rank 0 of the actor writes, all workers of the rollout read (verl/checkpoint_engine/base.py)."""

    def __init__(self, bucket_size: int, folder: str, is_master: bool = False) -> None:
        self._folder, self._hand_over = Path(folder), 0
        self._writes = False

    def prepare(self) -> None:
        self._hand_over += 1

    @classmethod
    def build_topology(cls, actor_wg_world_size, rollout_world_size, metadata):
        return {"rank": list(range(actor_wg_world_size))}, {"rank": [-1] * rollout_world_size}

    def init_process_group(self, rank: int) -> None:
        self._writes = rank == 0

    def finalize(self) -> None:
        pass

    @property
    def _file(self) -> Path:
        return self._folder / f"{self._hand_over}.pt"

    async def send_weights(self, weights, global_steps=None) -> None:
        # every rank goes through them: their shards are gathered on the way
        whole = {name: tensor.detach().clone() async for name, tensor in ensure_async_iterator(weights)}
        if self._writes:
            part = self._file.with_suffix(".part")
            torch.save(whole, part)
            part.rename(self._file)

    async def receive_weights(self, global_steps=None) -> AsyncIterator[tuple[str, torch.Tensor]]:
        while not self._file.is_file():
            await asyncio.sleep(0.05)
        for item in torch.load(self._file).items():
            yield item
