"""A run that dies at any point of a save finds the checkpoint that the tracker names."""

from __future__ import annotations

import pytest
import verl  # noqa: F401 - loads the plugin
from verl.utils.checkpoint import checkpoint_manager
from verl.utils.checkpoint.checkpoint_manager import BaseCheckpointManager, find_latest_ckpt_path

from verl_twgrpo.run_folder import TRACKER, last_checkpoint


def saves(folder, keep, stock=False):
    """verl's steps of three saves (fsdp_checkpoint_manager.py, trainer_base.py `_save_checkpoint`), one by one."""
    manager = BaseCheckpointManager.__new__(BaseCheckpointManager)
    manager.previous_saved_paths = []
    prune, register = BaseCheckpointManager.ensure_checkpoint_capacity, BaseCheckpointManager.register_checkpoint
    if stock:
        prune, register = prune.__wrapped__, register.__wrapped__
    for step in (1, 2, 3):
        actor = folder / f"global_step_{step}" / "actor"
        prune(manager, keep)
        yield f"step {step}: about to write"
        actor.mkdir(parents=True)
        yield f"step {step}: written"
        register(manager, str(actor), keep)
        yield f"step {step}: registered"
        (folder / f"global_step_{step}" / "data.pt").touch()
        (folder / TRACKER).write_text("")
        yield f"step {step}: being named"
        (folder / TRACKER).write_text(str(step))
        yield f"step {step}: named"


def weights(folder):
    return sorted(int(actor.parent.name.rpartition("_")[2]) for actor in folder.glob("global_step_*/actor"))


@pytest.mark.parametrize("keep", [1, 2, 3, None])
def test_whenever_it_dies_the_named_checkpoint_has_its_weights(tmp_path, keep):
    named = 0
    for point in saves(tmp_path, keep):
        step = int(point.split()[1].rstrip(":"))
        named = step if "named" in point else named
        found = find_latest_ckpt_path(str(tmp_path))
        assert found == (str(tmp_path / f"global_step_{named}") if named else None), point
        assert (str(last_checkpoint(tmp_path)) == found) if named else last_checkpoint(tmp_path) is None
        if named:
            assert named in weights(tmp_path), point
        # as many at one time as verl has while it saves
        assert keep is None or len(weights(tmp_path)) <= max(2, keep), point
    assert weights(tmp_path) == [1, 2, 3][-max(2, keep or 3) :]


@pytest.mark.upstream_bug
def test_verl_deletes_what_the_tracker_names(tmp_path):
    assert any(
        (tmp_path / TRACKER).is_file() and last_checkpoint(tmp_path) is None for _ in saves(tmp_path, 1, stock=True)
    )


def test_verl_stops_at_an_empty_tracker(tmp_path):
    (tmp_path / "global_step_9" / "actor").mkdir(parents=True)
    (tmp_path / "global_step_10" / "actor").mkdir(parents=True)
    (tmp_path / TRACKER).touch()
    with pytest.raises(ValueError):
        checkpoint_manager.find_latest_ckpt_path.__wrapped__(str(tmp_path))
    assert checkpoint_manager.find_latest_ckpt_path(str(tmp_path)) == str(tmp_path / "global_step_10")


def test_no_folder_is_no_checkpoint(tmp_path):
    assert find_latest_ckpt_path(None) is None
    (tmp_path / TRACKER).touch()
    assert find_latest_ckpt_path(str(tmp_path)) is None
