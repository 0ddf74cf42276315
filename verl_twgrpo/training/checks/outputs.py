"""Folders that the run writes to can be written to."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from .registry import check

VALIDATION = ("trainer.validation_data_dir",)
TRAINING = ("algorithm.tw_grpo.dump_dir", "trainer.rollout_data_dir")


@check(reads_files=True)
def check_outputs(config: DictConfig) -> None:
    keys = VALIDATION if config.trainer.val_only else (*VALIDATION, *TRAINING)
    if not config.trainer.val_only and config.trainer.save_freq > 0:
        keys = (*keys, "trainer.default_local_dir")
    for key in keys:
        folder = OmegaConf.select(config, key)
        if folder and "://" not in str(folder):
            _check_writable(f"{key}={folder}", Path(os.path.expanduser(str(folder))).absolute())


def _check_writable(what: str, folder: Path) -> None:
    """A folder is made in the nearest one that exists, and removed: permissions alone do not say (/proc, quotas)."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        raise ValueError(f"{what}: {there} is a file; give a folder")
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".verl-twgrpo-", dir=there))
    except OSError as error:
        raise ValueError(
            f"{what}: cannot write there ({error.strerror}); give a folder that can be written to"
        ) from None
