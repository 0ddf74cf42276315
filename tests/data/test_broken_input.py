"""Whatever is in a parquet or an annotation file: findings, or one sentence that names the file. Never a traceback."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from verl_twgrpo import cli
from verl_twgrpo.data.parquet import FrameLimits, read_rows, write_parquet
from verl_twgrpo.data.sources import SOURCES
from verl_twgrpo.video.digest import video_digest

ANNOTATIONS = Path(__file__).parent / "annotations"


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


# what stands in a field's place
VALUES = [None, "", " ", "x", "<video>", "\0", "a" * 5000, 0, -1, 3, 15, 10**6, 2**62, 1.5, float("nan"), True]
VALUES += [[], ["x"], [None], {}, {"x": 1}, nested(30), "[" * 3000, "nowhere.mp4", "ä/" * 300, "\ud83d\ude00", "A,B,Z"]


def places(value, path=()):
    """Every place in a row: the path of each field, list element and holder."""
    if path:
        yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from places(inner, (*path, key))


def mutated(row, rng: random.Random):
    """The row with one or two fields replaced or removed."""
    row = copy.deepcopy(row)
    for _ in range(rng.choice([1, 1, 2])):
        where = rng.choice(list(places(row)))
        holder = row
        for key in where[:-1]:
            holder = holder[key]
        if rng.random() < 0.15:
            del holder[where[-1]]
        else:
            holder[where[-1]] = copy.deepcopy(rng.choice(VALUES))
        if not row:
            break
    return row


def said_in_a_sentence(arguments, capsys, named: str) -> int:
    """Run the command; every way to end is an exit code, and 2 comes with one line that names the file."""
    code = cli.main([str(argument) for argument in arguments])
    streams = capsys.readouterr()
    assert code in (0, 1, 2)
    if code == 2:
        lines = [line for line in streams.err.splitlines() if line.startswith("verl-twgrpo: ")]
        assert len(lines) == 1 and named in lines[0], streams.err
    return code


@pytest.fixture
def row(make_item, make_video, tmp_path):
    video = str(make_video("v.mp4", frames=8))
    items = [make_item(video=video, video_digest=video_digest(video))]
    return read_rows(write_parquet(items, tmp_path / "sound.parquet", limits=FrameLimits(nframes=2)))[0]


def write_table(rows, path) -> bool:
    """Whether such rows can be a parquet file at all; those that cannot are made of one type by dropping."""
    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    except (pyarrow.ArrowException, OverflowError, UnicodeError):
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("step", ["check", "invert", "frames"])
def test_no_parquet_row_ends_in_a_traceback(step, row, tmp_path, capsys):
    rng = random.Random(step)
    ends = {0: 0, 1: 0, 2: 0}
    path = tmp_path / "mutated.parquet"
    while sum(ends.values()) < 350:
        # alone, its field has that type in the file; with a sound row, null is all that a typed column can hold
        rows = [mutated(row, rng)] + ([row] if rng.random() < 0.3 else [])
        if not write_table(rows, path):
            continue
        more = {
            "check": (),
            "invert": ("--out", tmp_path / "out.parquet", "--force"),
            "frames": ("--cache", tmp_path / "cache"),
        }[step]
        ends[said_in_a_sentence(("data", step, path, "--workers", 1, *more), capsys, "mutated.parquet")] += 1
    assert ends[0] and ends[1] + ends[2] > 150


@pytest.mark.slow
def test_no_parquet_row_ends_a_plan_in_a_traceback(row, tmp_path, capsys, monkeypatch):
    """The whole command but for what costs a second per case: Hydra's composition, and the model's sizes."""
    from omegaconf import OmegaConf

    from verl_twgrpo.planning import command, summary
    from verl_twgrpo.planning.model import ModelSizes

    path = tmp_path / "mutated.parquet"
    files = [f"data.{key}={path}" for key in ("train_files", "val_files")]
    config = command.compose_run(["recipe=qwen2_5_vl_7b_clevrer", *files, f"out_dir={tmp_path}"])
    sizes = ModelSizes(hidden=64, vocabulary=100, context=9000, parameters=1000, trainable=1000, layers=2, folder=None)
    monkeypatch.setattr(summary, "model_sizes", lambda *_: sizes)
    monkeypatch.setattr(command, "compose_run", lambda _: OmegaConf.create(config))
    rng = random.Random("plan")
    ends = {0: 0, 1: 0, 2: 0}
    while sum(ends.values()) < 100:
        bad = mutated(row, rng)
        rows = rng.choice([[bad, bad], [bad, row, row]])
        if write_table(rows, path):
            ends[said_in_a_sentence(("plan", "of=these"), capsys, "mutated.parquet")] += 1
    assert ends[0] and ends[2] > 50


CASES = [("star", "star_released.json"), ("clevrer", "clevrer_official.json"), ("clevrer", "clevrer_released.json")]
CASES += [("nextgqa", "nextqa_official.jsonl"), ("star", "star_official.json"), ("mmvu", "mmvu_official.jsonl")]
CASES += [("mvbench", "mvbench_official.json"), ("tempcompass", "tempcompass_official.json")]
CASES += [("videomme", "videomme_official.jsonl")]


def annotation_rows(name: str):
    text = (ANNOTATIONS / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if name.endswith("l") else json.loads(text)


@pytest.mark.slow
@pytest.mark.parametrize(("source", "name"), CASES)
def test_no_annotation_row_ends_in_a_traceback(source, name, tmp_path, capsys):
    assert source in SOURCES
    rng = random.Random(name)
    whole = annotation_rows(name)
    (tmp_path / "videos").mkdir()
    path = tmp_path / "mutated.json"
    for _ in range(110):
        rows = copy.deepcopy(whole)
        if rng.random() < 0.1:  # the bytes, not the fields
            content = bytearray(json.dumps(rows).encode())
            for _ in range(rng.choice([1, 5, 50])):
                content[rng.randrange(len(content))] = rng.randrange(256)
            path.write_bytes(content[: rng.randrange(len(content))] if rng.random() < 0.3 else content)
        else:
            if isinstance(rows, list):
                at = rng.randrange(len(rows))
                rows[at] = rng.choice(VALUES) if rng.random() < 0.1 else mutated(rows[at], rng)
            else:
                rows = mutated(rows, rng)
            path.write_text(json.dumps(rows), encoding="utf-8")
        arguments = ("data", "convert", "--source", source, "--annotations", path, "--videos", tmp_path / "videos")
        said_in_a_sentence((*arguments, "--out", tmp_path / "out", "--force", "--workers", 1), capsys, "mutated.json")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\0" * 1000, b"PAR1" + b"\xff" * 400 + b"PAR1"])
@pytest.mark.parametrize("step", ["check", "invert", "frames"])
def test_a_file_that_is_no_parquet_is_named(step, content, tmp_path, capsys):
    path = tmp_path / "junk.parquet"
    path.write_bytes(content)
    more = {"check": (), "invert": ("--out", tmp_path / "o.parquet"), "frames": ("--cache", tmp_path / "c")}[step]
    assert said_in_a_sentence(("data", step, path, *more), capsys, "junk.parquet") == 2
    assert said_in_a_sentence(("data", step, tmp_path / "nosuch.parquet", *more), capsys, "no such file") == 2
    assert said_in_a_sentence(("data", step, tmp_path, *more), capsys, "a folder; give a parquet file") == 2
