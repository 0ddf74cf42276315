"""Options that would have no effect are refused; a damaged cache is found and mended; one bad row stops nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from verl_twgrpo import cli
from verl_twgrpo.data.inversion import contradictory_options
from verl_twgrpo.data.parquet import FrameLimits, read_rows, write_parquet
from verl_twgrpo.files import atomic_write
from verl_twgrpo.progress import Progress
from verl_twgrpo.video.cache import FrameCache
from verl_twgrpo.video.digest import video_digest
from verl_twgrpo.video.fill import prepare_all, videos_of

# videos are made and damaged
pytestmark = pytest.mark.slow

OPTIONS = ["(A) one", "(B) two"]


@pytest.fixture
def annotations(make_video, tmp_path):
    make_video("videos/a.mp4", frames=8)
    rows = [{"id": str(k), "video": "a", "question": "what is it", "options": OPTIONS} for k in range(4)]
    rows = [{**row, "video": "a.mp4", "answer": "(A)"} for row in rows]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    return path


def convert(annotations, *more) -> int:
    folder = annotations.parent
    words = ("data", "convert", "--source", "nextgqa", "--annotations", annotations, "--videos", folder / "videos")
    return cli.main([str(word) for word in (*words, "--out", folder / "out", *more)])


@pytest.fixture
def sound(make_item, make_video, tmp_path):
    videos = [str(make_video(f"{k}.mp4", shade=40 * k)) for k in range(3)]
    items = [make_item(id=str(k), video=v, video_digest=video_digest(v)) for k, v in enumerate(videos)]
    return write_parquet(items, tmp_path / "sound.parquet", limits=FrameLimits(nframes=4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", 1], "--seed has no effect without --invert"),
        (["--paper-compatible"], "--paper-compatible has no effect without --invert"),
        (["--nframes", 0], "nframes: 0, need an even number"),
        (["--nframes", -2], "nframes: -2, need an even number"),
        (["--nframes", 1000000], "nframes: 1000000, need an even number from 2 to 768"),
        (["--split", "../x"], "--split ../x: need a name"),
        (["--split", ".."], "--split ..: need a name"),
        (["--max-frame-tokens", 2], "--max-frame-tokens 2 is below --min-frame-tokens 4"),
    ],
)
def test_options_without_effect_or_sense_are_refused(options, message, annotations, capsys):
    assert convert(annotations, *options) == 2
    assert message in capsys.readouterr().err and not (annotations.parent / "out").exists()


@pytest.mark.parametrize("option", ["--patch-size", "--workers"])
@pytest.mark.parametrize("value", ["0", "-14", "x"])
def test_numbers_below_one_are_refused(option, value, sound, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["data", "frames", str(sound), "--cache", str(tmp_path / "c"), option, value])
    assert option in capsys.readouterr().err


@pytest.mark.parametrize("out", ["folder", "folder/", "x.txt"])
def test_invert_writes_a_parquet_file_and_nothing_else(out, sound, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    words = ["data", "invert", str(sound), "--out", os.path.join(tmp_path, out), "--force"]
    assert cli.main(words) == 2
    assert "need the name of a parquet file" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_rows_are_listed_with_their_reason_and_strict_stops(annotations, capsys):
    rows = json.loads(annotations.read_text())
    rows[1]["answer"], rows[2] = "(Z)", "no row"
    annotations.write_text(json.dumps(rows))
    assert convert(annotations, "--strict") == 2
    assert "row 1: " in capsys.readouterr().err
    assert not list(annotations.parent.rglob("*.left_out.json"))  # a conversion that fails leaves nothing
    assert convert(annotations) == 0
    assert "left out: 2 x bad row" in capsys.readouterr().out
    left_out = json.loads((annotations.parent / "out/nextgqa-validation.left_out.json").read_text())
    assert [entry["id"].rpartition(": ")[2] for entry in left_out] == ["row 1", "row 2"]
    assert "answer Z is not among" in left_out[0]["reason"] and "got str" in left_out[1]["reason"]


def test_a_video_that_cannot_be_read_is_left_out(annotations, monkeypatch, capsys):
    from verl_twgrpo.video import digest

    (annotations.parent / "videos/b.mp4").write_bytes(b"b")
    rows = json.loads(annotations.read_text())
    rows[3]["video"] = "b.mp4"
    annotations.write_text(json.dumps(rows))
    real = digest.video_digest

    def denied(path):
        if path.endswith("b.mp4"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(digest, "video_digest", denied)  # root reads files of mode 000
    assert convert(annotations) == 0
    assert "left out: 1 x video unreadable" in capsys.readouterr().out


def test_contradictory_options_are_found(annotations, capsys):
    rows = json.loads(annotations.read_text())
    rows[0]["options"] = ["(A) a ball", "(B) a cat", "(C) A ball."]
    annotations.write_text(json.dumps(rows))
    assert convert(annotations, "--nframes", 4) == 0
    assert "1 items have the same option as true and as false" in capsys.readouterr().out
    path = annotations.parent / "out/nextgqa-validation.parquet"
    assert cli.main(["data", "check", str(path)]) == 1
    assert "contradictory options" in capsys.readouterr().out
    assert contradictory_options(("a ball", "a cat", "A ball."), "AC") == ""
    assert contradictory_options(("5.0", "50", "!", "?"), "A") == ""


def spoil(path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "a byte of the frames":
        content[-5000] ^= 1
    elif how == "a byte of the metadata":
        at = content.find(b"fps") + 8
        content[at] = ord("7") if content[at] != ord("7") else ord("8")
    path.write_bytes({"cut": content[:1000], "empty": b""}.get(how, bytes(content)))


@pytest.mark.parametrize("how", ["a byte of the frames", "a byte of the metadata", "cut", "empty"])
def test_a_damaged_cache_file_is_found_refused_and_decoded_again(how, sound, tmp_path, capsys):
    videos = videos_of(read_rows(sound))
    cache = FrameCache(tmp_path / "c")
    prepare_all(videos, cache.folder, ray=False)
    whole = cache.path(videos[1]).read_bytes()
    spoil(cache.path(videos[1]), how)
    with pytest.raises(OSError, match="damaged .*`verl-twgrpo data frames` again"):
        FrameCache(cache.folder).get(videos[1])
    check = ["data", "check", str(sound), "--cache", str(cache.folder)]
    assert cli.main(check) == 1
    out = capsys.readouterr().out
    assert "1 x cache damaged" in out and "1.mp4" in out
    states = [result.state for result in prepare_all(videos, cache.folder, ray=False)]
    assert states == ["cached", "decoded", "cached"] and cache.path(videos[1]).read_bytes() == whole
    assert cli.main(check) == 0


def test_force_decodes_again_what_is_in_the_cache(sound, tmp_path, capsys):
    words = ["data", "frames", str(sound), "--cache", str(tmp_path / "c")]
    assert [cli.main(words), cli.main(words), cli.main([*words, "--force"])] == [0, 0, 0]
    counts = [line for line in capsys.readouterr().out.splitlines() if line.startswith("3 videos")]
    assert [line.split(", ")[1] for line in counts] == ["3 decoded", "0 decoded", "3 decoded"]


def test_missing_frames_are_named_by_row_without_reading_any(sound, tmp_path, monkeypatch):
    rows = read_rows(sound)
    prepare_all(videos_of(rows[:1]), tmp_path / "c", ray=False)
    monkeypatch.setattr(FrameCache, "_read", lambda *_: pytest.fail("a look, no more"))
    found = FrameCache(tmp_path / "c").missing(rows)
    assert [number for number, _ in found] == [1, 2] and "1.mp4: not in the frame cache" in found[0][1]


def test_check_with_a_cache_keeps_the_true_reason(sound, tmp_path, capsys):
    bad = tmp_path / "1.mp4"
    bad.write_bytes(b"no video")
    cache = str(tmp_path / "c")
    rows = read_rows(sound)
    rows[1]["videos"][0]["digest"] = video_digest(bad)
    from verl_twgrpo.data.parquet import write_rows

    write_rows(rows, sound, force=True)
    assert cli.main(["data", "frames", str(sound), "--cache", cache]) == 1
    write_rows(rows[:1], tmp_path / "other.parquet")
    assert cli.main(["data", "frames", str(tmp_path / "other.parquet"), "--cache", cache]) == 0
    fixed = tmp_path / "fixed"
    assert cli.main(["data", "check", str(sound), "--cache", cache, "--fix", str(fixed)]) == 0
    (left_out,) = json.loads((fixed / "sound.left_out.json").read_text())
    assert left_out["kind"] == "video broken" and "moov atom not found" in left_out["message"]
    assert cli.main(["data", "frames", str(sound), "--cache", cache, "--strict"]) == 2
    assert "1.mp4: broken video" in capsys.readouterr().err


def test_fix_says_that_its_output_exists_before_it_works(sound, tmp_path, monkeypatch, capsys):
    from verl_twgrpo.data import check

    monkeypatch.setattr(check, "check", lambda *_, **__: pytest.fail("worked before it looked"))
    assert cli.main(["data", "check", str(sound), "--fix", str(tmp_path)]) == 2
    assert "sound.parquet exists; give --force" in capsys.readouterr().err


def test_a_full_disk_is_said_with_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*a\.json'"),
        atomic_write(tmp_path / "a.json") as part,
    ):
        part.write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_stops_data_frames_with_one_sentence(sound, tmp_path, monkeypatch, capsys):
    from safetensors import SafetensorError

    from verl_twgrpo.video import cache

    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(cache, "save_file", full)
    assert cli.main(["data", "frames", str(sound), "--cache", str(tmp_path / "c")]) == 2
    assert "cannot be written (I/O error: No space left on device" in capsys.readouterr().err


def test_an_interrupt_ends_in_130_and_says_what_is_kept(sound, tmp_path, monkeypatch, capsys):
    from verl_twgrpo.video import fill

    real = fill.prepare

    def stopping(video, *rest, **how):
        if video["video"].endswith("2.mp4"):
            raise KeyboardInterrupt
        return real(video, *rest, **how)

    monkeypatch.setattr(fill, "prepare", stopping)
    words = ["data", "frames", str(sound), "--cache", str(tmp_path / "c"), "--workers", "1"]
    assert cli.main(words) == 130
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("verl-twgrpo")]
    assert "interrupted; 2 of 3 videos are in" in line


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal():
    code = """
import verl_twgrpo.progress as p
p.SECONDS_BETWEEN_LINES = 0
with p.Progress(2, "frames", "video") as progress:
    progress.advance(failed=0)
    progress.advance(failed=1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = [line.split(" after ")[0] + line[line.find(", ") :] for line in done.stderr.splitlines()]
    assert lines[:2] == ["frames: 1 of 2 videos, 0 failed", "frames: 2 of 2 videos, 1 failed"]
    assert Progress(1, "a", "b").total == 1
