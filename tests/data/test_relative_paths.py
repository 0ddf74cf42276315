"""A folder of parquet file and videos can be moved; a file can be pointed at another folder of videos."""

from __future__ import annotations

import shutil

import pyarrow.parquet as pq
import pytest

from verl_twgrpo import cli
from verl_twgrpo.data.parquet import FrameLimits, read_rows, write_parquet
from verl_twgrpo.video.digest import video_digest


@pytest.fixture
def folder(make_item, make_video, tmp_path):
    videos = [str(make_video(f"set/videos/{k}.mp4", shade=40 * k, frames=8)) for k in range(2)]
    items = [make_item(id=str(k), video=v, video_digest=video_digest(v)) for k, v in enumerate(videos)]
    write_parquet(items, tmp_path / "set/a.parquet", limits=FrameLimits(nframes=2), relative=True)
    return tmp_path / "set"


def written(path) -> list[str]:
    return [videos[0]["video"] for videos in pq.read_table(path).column("videos").to_pylist()]


def test_a_moved_folder_still_works(folder, tmp_path, monkeypatch):
    assert written(folder / "a.parquet") == ["videos/0.mp4", "videos/1.mp4"]
    moved = tmp_path / "elsewhere"
    shutil.move(folder, moved)
    monkeypatch.chdir("/")
    path = str(moved / "a.parquet")
    assert [row["videos"][0]["video"] for row in read_rows(path)] == [str(moved / f"videos/{k}.mp4") for k in range(2)]
    assert cli.main(["data", "check", path]) == 0
    assert cli.main(["data", "frames", path, "--cache", str(moved / "cache")]) == 0
    # what is made of it is relative as well, to its own place
    assert cli.main(["data", "invert", path, "--out", str(moved / "more/b.parquet")]) == 0
    assert written(moved / "more/b.parquet") == ["../videos/0.mp4", "../videos/1.mp4"]
    assert cli.main(["data", "check", path, "--fix", str(moved / "fixed")]) == 0
    assert written(moved / "fixed/a.parquet")[0] == "../videos/0.mp4"


def test_verls_own_dataset_finds_them(folder, tmp_path, monkeypatch):
    import verl  # noqa: F401 - the plugin
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset

    monkeypatch.chdir(tmp_path)
    config = OmegaConf.create(
        {"cache_dir": str(tmp_path / "hub"), "filter_overlong_prompts": False, "video_key": "videos"}
    )
    dataset = RLHFDataset(data_files=[str(folder / "a.parquet")], tokenizer=None, config=config, processor=object())
    video = dataset[1]["raw_prompt"][0]["content"][0]
    assert video["video"] == str(folder / "videos/1.mp4") and video["nframes"] == 2


def test_a_file_is_pointed_at_another_folder(folder, tmp_path, capsys):
    path = str(folder / "a.parquet")
    shutil.move(folder / "videos", tmp_path / "archive")
    assert cli.main(["data", "reroot", path, "--root", str(tmp_path / "archive")]) == 0
    assert written(path)[0] == str(tmp_path / "archive/0.mp4")
    assert cli.main(["data", "reroot", path, "--root", str(tmp_path / "archive"), "--relative"]) == 0
    assert written(path)[0] == "../archive/0.mp4"
    before = (folder / "a.parquet").read_bytes()
    shutil.copy(tmp_path / "archive/0.mp4", tmp_path / "archive/1.mp4")
    assert cli.main(["data", "reroot", path, "--root", str(tmp_path / "archive")]) == 2
    assert "row 1: " in capsys.readouterr().err and (folder / "a.parquet").read_bytes() == before
    (tmp_path / "archive/1.mp4").unlink()
    assert cli.main(["data", "reroot", path, "--root", str(tmp_path / "archive")]) == 2
    assert "row 1: " in capsys.readouterr().err
