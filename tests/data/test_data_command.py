"""``verl-twgrpo data`` from raw annotations to prepared frames, as a person runs it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from verl_twgrpo.cli import main
from verl_twgrpo.data import command
from verl_twgrpo.data.parquet import read_parquet, read_rows
from verl_twgrpo.video.cache import FrameCache

ANNOTATIONS = Path(__file__).parent / "annotations"


def run(*arguments) -> int:
    parser = argparse.ArgumentParser(prog="verl-twgrpo data")
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def star_rows(make_video, tmp_path):
    """Forty STAR questions about two videos in a folder with a blank and an accent in its name."""
    for k in range(2):
        make_video(f"my vidéos/{k}.mp4", shade=50 * k, frames=8)
    rows = [
        {
            "id": str(k),
            "video": f"/STAR/{k % 2}.mp4",
            "question": "What did the person do?",
            "options": ["Washed.", "Put down.", "Sat at.", "Tidied up."],
            "solution": f"<answer>{'ABCD'[k % 4]}</answer>",
        }
        for k in range(40)
    ]
    path = tmp_path / "star é.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def converting(star_rows, out, *more):
    return run(
        "convert", "--source", "star", "--annotations", star_rows, "--videos", star_rows.parent / "my vidéos", "--out",
        out, "--nframes", 4, *more,
    )  # fmt: skip


def test_convert_frames_and_check_go_through_from_raw_files(star_rows, tmp_path, capsys):
    assert converting(star_rows, tmp_path / "out") == 0
    path = tmp_path / "out/star-train.parquet"
    assert f"{path}: 40 items" in capsys.readouterr().out
    assert run("frames", path, "--cache", tmp_path / "cache") == 0
    assert "2 videos, 2 decoded, 0 cached, 0 failed" in capsys.readouterr().out
    assert run("frames", path, "--cache", tmp_path / "cache") == 0
    assert "2 videos, 0 decoded, 2 cached, 0 failed" in capsys.readouterr().out
    assert run("check", path, "--cache", tmp_path / "cache") == 0
    frames, _ = FrameCache(tmp_path / "cache").get(read_rows(path)[0]["videos"][0])
    assert frames.shape == (4, 3, 56, 84)


def test_inversion_in_one_go_equals_inversion_of_the_converted_file(star_rows, tmp_path, capsys):
    assert converting(star_rows, tmp_path / "a", "--invert", "--seed", 5) == 0
    assert "| inverted |" in capsys.readouterr().out
    assert converting(star_rows, tmp_path / "b") == 0
    two = tmp_path / "b/inverted.parquet"
    assert run("invert", tmp_path / "b/star-train.parquet", "--out", two, "--seed", 5) == 0
    one = tmp_path / "a/star-train.parquet"
    assert read_rows(one) == read_rows(two)
    assert {row["videos"][0]["nframes"] for row in read_rows(two)} == {4}
    items = read_parquet(two)
    assert 10 < sum(item.negated for item in items) < 30
    assert {item.question for item in items if item.negated} == {"What didn't the person do?"}
    for suffix in (".audit.json", ".audit.md"):
        assert one.with_suffix(suffix).read_bytes() == two.with_suffix(suffix).read_bytes()
    assert json.loads(two.with_suffix(".audit.json").read_text())["items"] == 40


def test_paper_compatible_inversion_keeps_all_options_of_the_others(star_rows, tmp_path):
    assert converting(star_rows, tmp_path / "a", "--invert", "--paper-compatible") == 0
    items = read_parquet(tmp_path / "a/star-train.parquet")
    assert {len(item.options) for item in items if not item.negated} == {4}
    assert {len(item.options) for item in items if item.negated} == {2, 3, 4}
    assert all(item.provenance["qai"]["paper_compatible"] for item in items)


def test_what_is_left_out_is_printed_and_listed(star_rows, tmp_path, capsys):
    rows = json.loads(star_rows.read_text(encoding="utf-8"))
    rows[3]["video"] = "/STAR/absent.mp4"
    star_rows.write_text(json.dumps(rows), encoding="utf-8")
    assert converting(star_rows, tmp_path / "out") == 0
    assert "left out: 1 x video missing" in capsys.readouterr().out
    (left_out,) = json.loads((tmp_path / "out/star-train.left_out.json").read_text(encoding="utf-8"))
    assert left_out["id"] == "3" and "absent.mp4" in left_out["reason"]
    assert len(read_parquet(tmp_path / "out/star-train.parquet")) == 39


def test_nothing_is_overwritten_unless_forced(star_rows, tmp_path):
    assert converting(star_rows, tmp_path) == 0
    with pytest.raises(FileExistsError, match=r"star-train\.parquet exists; give --force"):
        converting(star_rows, tmp_path)
    assert converting(star_rows, tmp_path, "--force", "--max-frame-tokens", 4) == 0
    path = tmp_path / "star-train.parquet"
    assert read_rows(path)[0]["videos"][0]["max_pixels"] == 4 * 28 * 28
    with pytest.raises(FileExistsError, match="give --force"):
        run("invert", path, "--out", path)


def test_frames_says_which_videos_failed_and_ends_with_1(star_rows, tmp_path, capsys):
    assert converting(star_rows, tmp_path) == 0
    video = star_rows.parent / "my vidéos/1.mp4"
    video.write_bytes(video.read_bytes()[:-300])
    path = tmp_path / "star-train.parquet"
    assert run("frames", path, "--cache", tmp_path / "cache") == 1
    out = capsys.readouterr().out
    assert f"failed: {video}: " in out and "1 decoded, 0 cached, 1 failed" in out
    summary = json.loads((tmp_path / "cache/last_run.json").read_text(encoding="utf-8"))
    assert [failure["video"] for failure in summary["failures"]] == [str(video)]


def test_mini_clevrer_is_made_elsewhere_and_read_like_the_others(tmp_path, capsys):
    with pytest.raises(ValueError, match="demo prepare --data-only"):
        run("convert", "--source", "mini_clevrer", "--out", tmp_path)
    assert main(f"demo prepare --data-only --out {tmp_path} --train 3 --validation 2".split()) == 0
    assert not (tmp_path / "model").exists()
    path = tmp_path / "data/validation.parquet"
    rows = read_rows(path)
    assert len(rows) == 2 and rows[0]["videos"][0]["nframes"] == 8
    assert run("frames", path, "--cache", tmp_path / "cache") == 0
    assert run("check", path, "--cache", tmp_path / "cache") == 0


@pytest.mark.parametrize("missing", ["annotations", "videos"])
def test_a_missing_argument_is_named(missing, tmp_path):
    arguments = {"annotations": "x.json", "videos": str(tmp_path)}
    given = [part for name, value in arguments.items() if name != missing for part in (f"--{name}", value)]
    with pytest.raises(ValueError, match=f"--{missing} is needed for --source star"):
        run("convert", "--source", "star", "--out", tmp_path, *given)


def test_a_prompt_can_be_chosen(star_rows, tmp_path):
    assert converting(star_rows, tmp_path, "--prompt", "zeroshot") == 0
    content = read_rows(tmp_path / "star-train.parquet")[0]["prompt"][0]["content"]
    assert content.endswith("Answer with the option's letter from the given choices directly.")
