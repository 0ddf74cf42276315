"""How many steps a run makes, what it saves, and how often it looks at its validation set."""

from __future__ import annotations

import math
from dataclasses import dataclass

from omegaconf import DictConfig

from verl_twgrpo.run_folder import last_step


@dataclass(frozen=True)
class Steps:
    """first: where a resumed run goes on, else 0. last: the last step; None if no data file says. per_epoch: likewise.

    saves: checkpoints that will be written from first to last. on_disk: how many of them there are at the same time.
    """

    first: int
    last: int | None
    per_epoch: int | None
    saves: int
    on_disk: int


def steps(config: DictConfig, rows: int | None) -> Steps:
    """The steps of a run over ``rows`` rows, as verl's PPOTrainer.fit counts them (trainer/ppo/v1/trainer_base.py).

    Raises ``ValueError`` naming the key if there would be none.
    """
    trainer, data = config.trainer, config.data
    wanted = data.train_max_samples
    if rows is not None:
        rows = min(rows, wanted) if wanted > 0 else rows
        if rows < data.train_batch_size:
            raise ValueError(f"data.train_batch_size={data.train_batch_size}: the training data has {rows} rows only")
    elif wanted > 0:
        rows = wanted
    per_epoch = None if rows is None else rows // data.train_batch_size
    last = trainer.total_training_steps
    if per_epoch is not None:
        in_epochs = per_epoch * trainer.total_epochs
        last = in_epochs if last is None else min(last, in_epochs)
    first = resumed_step(config)
    saves = 0
    if last is not None and trainer.save_freq > 0:
        saves = max(math.ceil(last / trainer.save_freq) - first // trainer.save_freq, 0)
    return Steps(first, last, per_epoch, saves, _on_disk(saves, trainer.max_actor_ckpt_to_keep))


def resumed_step(config: DictConfig) -> int:
    """The step of the checkpoint that ``trainer.resume_mode=auto`` finds in ``trainer.default_local_dir``, or 0."""
    return last_step(config.trainer.default_local_dir) if config.trainer.resume_mode == "auto" else 0


def _on_disk(saves: int, kept: int | None) -> int:
    """verl deletes the only one kept after the next is written, and others before (checkpoint_manager.py)."""
    return saves if not kept else min(saves, 2 if kept == 1 else kept)
