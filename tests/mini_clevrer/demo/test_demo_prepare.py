"""``verl-twgrpo demo prepare``: what it writes, and that it does not write it twice."""

from __future__ import annotations

import argparse
import json

import pytest

from verl_twgrpo.data.parquet import read_parquet, read_rows
from verl_twgrpo.mini_clevrer.demo import command

pytestmark = pytest.mark.slow


def prepare(out, **changes) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    small = {"train": 4, "validation": 2, "shown-steps": 1, "slip-steps": 1} | changes
    return command.run(parser.parse_args(["--out", str(out), *(f"--{key}={value}" for key, value in small.items())]))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    out = tmp_path_factory.mktemp("a demo")
    assert prepare(out) == 0
    return out


def stamps(folder) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_both_splits_and_a_checkpoint_are_where_the_recipe_looks(prepared):
    train, validation = (read_parquet(prepared / "data" / f"{name}.parquet") for name in ("train", "validation"))
    assert (len(train), len(validation)) == (4, 2)
    assert not {item.video_digest for item in train} & {item.video_digest for item in validation}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in (prepared / "model").iterdir()}


def test_the_videos_column_keeps_eight_frames_of_56_by_56(prepared):
    (video,) = read_rows(prepared / "data" / "train.parquet")[0]["videos"]
    assert (video["nframes"], video["min_pixels"], video["max_pixels"]) == (8, 56 * 56, 56 * 56)


def test_a_second_run_reuses_everything(prepared, capsys):
    before = stamps(prepared)
    assert prepare(prepared) == 0
    assert stamps(prepared) == before
    assert capsys.readouterr().out.count("there already") == 2


def test_other_settings_are_refused_by_name(prepared):
    before = stamps(prepared)
    with pytest.raises(ValueError, match=r"data was made with other settings \(train\)"):
        prepare(prepared, train=5)
    with pytest.raises(ValueError, match=r"model was made with other settings \(slip_steps\)"):
        prepare(prepared, **{"slip-steps": 2})
    assert stamps(prepared) == before


def test_a_part_that_was_not_finished_is_made_again(prepared, tmp_path):
    assert prepare(tmp_path) == 0
    # as a run leaves it that is killed while it makes the data
    (tmp_path / "data.json").unlink()
    (tmp_path / "data" / "train.parquet").unlink()
    model = stamps(tmp_path / "model")
    assert prepare(tmp_path) == 0
    assert len(read_parquet(tmp_path / "data" / "train.parquet")) == 4
    assert stamps(tmp_path / "model") == model
    assert json.loads((tmp_path / "data.json").read_text())["train"] == 4


def test_videos_of_another_seed_do_not_stay_beside_the_new_ones(tmp_path):
    from verl_twgrpo.mini_clevrer.world import shown

    for seed in (0, 1):
        command.make_data(tmp_path, {"train": 2, "validation": 1, "seed": seed}, shown.generate)
        named = {
            item.video for split in ("train", "validation") for item in read_parquet(tmp_path / f"{split}.parquet")
        }
        assert {str(path) for path in tmp_path.rglob("*.mp4")} == named and len(named) == 3


def test_questions_of_other_tasks_with_a_model_that_knows_their_words(tmp_path):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = ["--tasks", "--train=2", "--validation=2", "--moment-steps=1", f"--out={tmp_path}"]
    assert command.run(parser.parse_args(words)) == 0
    assert [item.task for item in read_parquet(tmp_path / "data" / "train.parquet")] == [
        "temporal_grounding",
        "counting",
    ]
    assert (
        "How many pairs of objects meet?"
        in json.loads((tmp_path / "model" / "tokenizer.json").read_text())["model"]["vocab"]
    )
    with pytest.raises(ValueError, match=r"data was made with other settings"):
        prepare(tmp_path, train=2)
