"""What a run leaves on disk is read by one rule."""

from __future__ import annotations

import pytest

from verl_twgrpo.files import ensure_same_settings
from verl_twgrpo.run_folder import last_checkpoint, last_step, read_scalars


def saved(folder, step):
    (folder / f"global_step_{step}" / "actor").mkdir(parents=True)
    (folder / "latest_checkpointed_iteration.txt").write_text(str(step))


def test_a_checkpoint_that_was_not_finished_is_not_offered(tmp_path):
    assert last_checkpoint(tmp_path) is None and last_step(tmp_path) == 0
    saved(tmp_path, 2)
    (tmp_path / "global_step_4" / "actor").mkdir(parents=True)  # the tracker is written last
    assert last_checkpoint(tmp_path) == tmp_path / "global_step_2" and last_step(tmp_path) == 2
    (tmp_path / "global_step_2" / "actor").rmdir()  # what verl deletes of an old one; data.pt stays
    assert last_checkpoint(tmp_path) is None and last_step(tmp_path) == 0


def test_the_value_that_a_resumed_run_wrote_last_counts_wherever_its_file_is(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    # the folder of the earlier start comes last by name
    for name, time, values in (("b", 100, {1: 1.0, 2: 5.0}), ("a", 200, {2: 2.0, 3: 3.0})):
        writer = SummaryWriter(str(tmp_path / name))
        for step, value in values.items():
            writer.add_scalar("reward", value, step, walltime=time)
        writer.close()
    assert read_scalars(tmp_path) == {"reward": {1: 1.0, 2: 2.0, 3: 3.0}}
    with pytest.raises(FileNotFoundError, match="nowhere: no tensorboard events"):
        read_scalars(tmp_path / "nowhere")


def test_other_settings_are_refused_with_what_differs():
    ensure_same_settings("a", {"seed": 0}, {"seed": 0})
    with pytest.raises(ValueError, match=r"^a was made with other settings \(seed, old\); remove it or give another"):
        ensure_same_settings("a", {"seed": 0, "old": 1}, {"seed": 1})
    with pytest.raises(ValueError, match=r"settings \(x=1, x=2\)"):
        ensure_same_settings("a", ["x=1", "y"], ["x=2", "y"])
