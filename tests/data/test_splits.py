"""Rows are held out by their videos, the same ones whatever the order of the file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_twgrpo import cli
from verl_twgrpo.data.parquet import read_rows, write_parquet
from verl_twgrpo.data.splits import hold_out
from verl_twgrpo.video.digest import video_digest


def rows_of(videos):
    return [{"videos": [{"digest": video}], "number": number} for number, video in enumerate(videos)]


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=20), st.integers(1, 8), st.integers(0, 3))
def test_no_video_is_on_both_sides_and_none_is_lost(videos, count, seed):
    rows = rows_of(videos)
    try:
        kept, held = hold_out(rows, count, seed)
    except ValueError as error:
        assert "none would be left" in str(error)
        return
    assert len(held) >= count and kept
    assert sorted(row["number"] for row in kept + held) == list(range(len(rows)))
    names = [{row["videos"][0]["digest"] for row in part} for part in (kept, held)]
    assert not names[0] & names[1]
    turned = hold_out(rows[::-1], count, seed)[1]
    assert sorted(row["number"] for row in turned) == sorted(row["number"] for row in held)


def test_another_seed_holds_other_videos_out():
    rows = rows_of("abcdefghijklmnop")
    assert len({tuple(row["number"] for row in hold_out(rows, 4, seed)[1]) for seed in range(5)}) > 1


@pytest.fixture
def file(make_item, make_video, tmp_path):
    """``file(videos)``: a parquet file of two questions on each of so many videos."""

    def make(videos):
        paths = [str(make_video(f"{k}.mp4", shade=40 * k, frames=8)) for k in range(videos)]
        items = [
            make_item(id=f"{k} {question}", video=path, video_digest=video_digest(path))
            for k, path in enumerate(paths)
            for question in range(2)
        ]
        return str(write_parquet(items, tmp_path / "own.parquet"))

    return make


def test_a_file_becomes_two(file, tmp_path, capsys):
    path = file(4)
    assert cli.main(["data", "split", path, "--hold-out", "3"]) == 0
    parts = {name: read_rows(tmp_path / f"own-{name}.parquet") for name in ("kept", "held")}
    assert {name: len(rows) for name, rows in parts.items()} == {"kept": 4, "held": 4}
    assert f"{tmp_path}/own-held.parquet: 4 rows" in capsys.readouterr().out
    assert (
        cli.main(["data", "check", f"{tmp_path}/own-kept.parquet", "--validation", f"{tmp_path}/own-held.parquet"]) == 0
    )
    assert cli.main(["data", "split", path, "--hold-out", "3"]) == 2
    assert "own-kept.parquet" in capsys.readouterr().err


@pytest.mark.parametrize(("count", "message"), [("0", "need 1 row"), ("9", "of 2 rows on 1 videos none would be left")])
def test_what_cannot_be_held_out_is_said(count, message, file, capsys):
    assert cli.main(["data", "split", file(1), "--hold-out", count]) == 2
    assert message in capsys.readouterr().err
