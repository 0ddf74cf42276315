"""`verl-twgrpo parity`: which row is looked at, what is written, which exit code."""

from __future__ import annotations

import json
import os
import sys
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from verl_twgrpo import cli
from verl_twgrpo.parity.comparison import Side, compare
from verl_twgrpo.parity.prompts import row_of_parquet, row_of_videos, write_video
from verl_twgrpo.parity.quiet import kept_quiet
from verl_twgrpo.video.decode import probe


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return str(folder)


@pytest.fixture
def looked(monkeypatch):
    """The command with a stand-in for the engines; ``looked["gap"]`` is how far their log-probs lie apart."""
    seen = {"gap": 0.0}

    class Seen:
        model_type, dtype = "qwen2_5_vl", "float32"

        def __init__(self, row):
            seen["row"] = row
            sides = [Side([1], torch.zeros(3, 2, dtype=torch.int64), [-1.0 - gap]) for gap in (0.0, seen["gap"])]
            self.comparison = compare(*sides, [])

        def lines(self):
            return list(self.comparison.differences)

    stand_in = ModuleType("verl_twgrpo.parity.sides")
    stand_in.look = lambda model, row, max_tokens: Seen(row)
    monkeypatch.setitem(sys.modules, "verl_twgrpo.parity.sides", stand_in)
    return seen


@pytest.mark.parametrize(("gap", "code"), [(0.0, 0), (0.5, 1)])
def test_the_exit_code_says_whether_anything_differs(model, looked, tmp_path, capsys, gap, code):
    looked["gap"] = gap
    file = tmp_path / "out" / "found.json"
    assert cli.main(["parity", model, "--json", str(file)]) == code
    found = json.loads(file.read_text())
    assert {
        "prompt_ids_equal", "vision_tokens", "time_coordinates", "seconds", "position_ids_equal", "log_prob_diff_max",
        "log_prob_diff_mean",
    } <= set(found)  # fmt: skip
    assert found["log_prob_diff_max"] == pytest.approx(gap)
    assert ("log-probs of the response differ by 0.5" in capsys.readouterr().out) == (code == 1)


def test_without_a_source_it_makes_a_video_of_known_length(model, looked, tmp_path):
    assert cli.main(["parity", model]) == 0
    (video,) = looked["row"]["videos"]
    assert video["nframes"] == 16
    info = probe(write_video(tmp_path / "square.mp4"))
    assert (info.frames, info.fps) == (128, 25)


def test_the_row_is_the_files(tmp_path):
    rows = [{"prompt": [{"role": "user", "content": f"question {k}"}], "other": k} for k in range(7)]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    for k in (0, 2, 3, 6):
        assert row_of_parquet(path, k) == rows[k]


def test_videos_stand_in_one_prompt(tmp_path):
    files = [write_video(tmp_path / f"{k}.mp4") for k in range(2)]
    row = row_of_videos(files)
    assert row["prompt"][0]["content"].count("<video>") == 2
    assert [video["video"] for video in row["videos"]] == [str(file) for file in files]


def test_what_is_not_there_is_one_sentence(model, tmp_path, capsys):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([{"question": "why?"}]), path)
    for words, sentence in {
        ("--video", "none.mp4"): "--video none.mp4: no such file",
        ("--data", "none.parquet"): "--data none.parquet: no such file",
        ("--data", str(path), "--row", "1"): "--row 1: " + str(path) + " has rows 0 to 0",
        ("--data", str(path)): "column 'prompt' is missing (it has question)",
        ("--row", "1"): "--row: give --data as well",
        ("--max-tokens", "0"): "--max-tokens 0: need 1 or more",
    }.items():
        assert cli.main(["parity", model, *words]) == 2
        assert sentence in capsys.readouterr().err
    assert cli.main(["parity", str(tmp_path)]) == 2
    assert "no checkpoint (config.json) there" in capsys.readouterr().err


def test_chatter_comes_out_with_an_error_that_nobody_foresaw(capfd):
    # as libraries written in C do
    with kept_quiet():
        os.write(1, b"loading")
    with pytest.raises(RuntimeError), kept_quiet():
        os.write(2, b"what led to it")
        raise RuntimeError
    with pytest.raises(ValueError), kept_quiet():
        os.write(2, b"beside the point")
        raise ValueError
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == "what led to it"
