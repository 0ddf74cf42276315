"""The checkpoint that the run starts from."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig

from .registry import check


@check(reads_files=True)
def check_checkpoint(config: DictConfig) -> None:
    """Hub names are left alone."""
    path = config.actor_rollout_ref.model.path
    if not path:
        raise ValueError("actor_rollout_ref.model.path is not set: give a checkpoint folder or a hub name")
    folder = Path(os.path.expanduser(path))
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"actor_rollout_ref.model.path={path}: no config.json in it; give a folder that save_pretrained wrote"
            )
    elif "://" not in path and not _looks_like_hub_name(path):
        demo = config.get("demo_dir") and folder == Path(config.demo_dir) / "model"
        what = (
            f"`verl-twgrpo demo prepare --out {config.demo_dir}` makes it"
            if demo
            else "give a checkpoint or a hub name"
        )
        raise ValueError(f"actor_rollout_ref.model.path={path}: no such folder; {what}")


def _looks_like_hub_name(path: str) -> bool:
    return path.count("/") == 1 and not path.startswith((".", "~", "/")) and not Path(path).parent.is_dir()
