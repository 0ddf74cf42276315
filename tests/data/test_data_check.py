"""``data check`` finds what would go wrong in training, and ``--fix`` says what it left out."""

from __future__ import annotations

import argparse
import json

import pytest

from verl_twgrpo.data import command
from verl_twgrpo.data.check import check, prompt_counter, table
from verl_twgrpo.data.parquet import FrameLimits, read_rows, write_parquet, write_rows
from verl_twgrpo.video.cache import FrameCache
from verl_twgrpo.video.digest import video_digest
from verl_twgrpo.video.fill import prepare_all, videos_of

# videos are made and looked at
pytestmark = pytest.mark.slow

LIMITS = FrameLimits(nframes=4)


@pytest.fixture
def sound(make_item, make_video, tmp_path):
    """Rows of a file in which nothing is wrong: four items, two videos."""
    videos = [str(make_video(f"vidéo {k}.mp4", shade=50 * k)) for k in range(2)]
    digests = [video_digest(video) for video in videos]
    items = [make_item(id=str(k), video=videos[k % 2], video_digest=digests[k % 2]) for k in range(4)]
    return read_rows(write_parquet(items, tmp_path / "sound.parquet", limits=LIMITS))


@pytest.fixture(scope="module")
def checkpoint(qwen_processor, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("checkpoint")
    qwen_processor.save_pretrained(folder)
    return str(folder)


def run(*arguments) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def kinds(findings) -> list[tuple[int, str]]:
    return [(finding.row, finding.kind) for finding in findings]


def test_a_sound_file_has_no_findings(sound, checkpoint, tmp_path, capsys):
    assert check({"a": sound}, {}, prompt_length=prompt_counter(checkpoint)) == []
    assert run("check", tmp_path / "sound.parquet", "--model", checkpoint) == 0
    assert "4 rows, nothing found" in capsys.readouterr().out


def spoil(row, what, make_video, tmp_path):
    video = row["videos"][0]
    if what == "video missing":
        video["video"] = str(tmp_path / "gone.mp4")
    elif what == "video changed":
        video["digest"] = "0" * 64
    elif what == "video broken":
        (tmp_path / "bad.mp4").write_bytes(b"bad")
        video.update(video=str(tmp_path / "bad.mp4"), digest=video_digest(tmp_path / "bad.mp4"))
    elif what == "prompt too long":
        row["prompt"][0]["content"] += " long" * 2000
    elif what == "answer or options":
        row["reward_model"]["ground_truth"] = "E"
    elif what == "gold answer":
        row["reward_model"]["ground_truth"] = "B,B"
    elif what == "repeated id":
        row["extra_info"]["id"] = "0"
    elif what == "videos":
        row["prompt"][0]["content"] = row["prompt"][0]["content"].removeprefix("<video>")
    return what


@pytest.mark.parametrize(
    "what",
    [
        "video missing",
        "video changed",
        "video broken",
        "prompt too long",
        "answer or options",
        "gold answer",
        "repeated id",
        "videos",
    ],
)
def test_each_fault_is_found_in_its_row_and_nowhere_else(what, sound, make_video, checkpoint, tmp_path):
    spoil(sound[2], what, make_video, tmp_path)
    findings = check({"a.parquet": sound}, {}, prompt_length=prompt_counter(checkpoint), max_prompt_length=2500)
    assert kinds(findings) == [(2, what)]
    assert findings[0].file == "a.parquet" and findings[0].message


def test_a_training_video_that_validation_has_too_is_found_under_any_name(sound, make_video, tmp_path):
    held_out = [json.loads(json.dumps(sound[0]))]
    (tmp_path / "copy.mp4").write_bytes((tmp_path / "vidéo 0.mp4").read_bytes())
    held_out[0]["videos"][0]["video"] = str(tmp_path / "copy.mp4")
    findings = check({"train": sound}, {"val": held_out})
    assert kinds(findings) == [(0, "video in validation"), (2, "video in validation")]
    assert {finding.file for finding in findings} == {"train"} and "val: row 0" in findings[0].message


def test_ids_may_be_shared_by_training_and_validation_and_by_sources_but_not_within(sound):
    other = [{**row, "data_source": "star"} for row in json.loads(json.dumps(sound))]
    for row in other:
        row["videos"][0]["digest"] = ""
    assert kinds(check({"a": sound, "b": other}, {})) == []
    findings = check({"a": sound[:2], "b": sound[1:]}, {})
    assert [(finding.file, finding.row, finding.kind) for finding in findings] == [("b", 0, "repeated id")]
    assert "a: row 1" in findings[0].message


def test_frames_missing_from_the_cache_are_found(sound, tmp_path):
    prepare_all(videos_of(sound[:1]), tmp_path / "cache", ray=False)
    findings = check({"a": sound}, {}, cache=FrameCache(tmp_path / "cache"))
    assert kinds(findings) == [(1, "not in the cache"), (3, "not in the cache")]


def test_prompt_lengths_are_those_of_verls_own_filter(sound, checkpoint, qwen_processor, tmp_path):
    from verl.utils.dataset.rl_dataset import RLHFDataset
    from verl.utils.tokenizer import build_multimodal_processor_inputs

    from verl_twgrpo.data.check import frames_shape
    from verl_twgrpo.video.decode import prepare_video

    sound[1]["videos"][0].update(nframes=6, max_pixels=4 * 784)
    sound[3]["prompt"][0]["content"] += " and more"
    counter = prompt_counter(checkpoint)
    for row in sound:
        builder = RLHFDataset.__new__(RLHFDataset)
        builder.image_key, builder.video_key, builder.audio_key = "images", "videos", "audios"
        builder.processor = qwen_processor
        messages = builder._build_messages(json.loads(json.dumps(row)), "prompt")
        text = qwen_processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        inputs = build_multimodal_processor_inputs(
            qwen_processor, text=[text], videos=[prepare_video(row["videos"][0])]
        )
        assert counter(row, frames_shape(row["videos"][0], None, 14)) == len(inputs["input_ids"][0])


def test_the_table_names_kind_file_row_and_id_and_counts_what_it_does_not_show(sound):
    rows = json.loads(json.dumps(sound * 10))
    text = table(check({"train set.parquet": rows}, {}))
    assert "repeated id  train set.parquet  4    0   first in train set.parquet: row 0" in text
    assert "36 x repeated id, 26 not shown" in text


def test_findings_give_exit_code_1_and_fix_writes_the_rest_and_a_list(sound, make_video, tmp_path, capsys):
    spoil(sound[1], "video missing", make_video, tmp_path)
    spoil(sound[3], "gold answer", make_video, tmp_path)
    path = write_rows(sound, tmp_path / "train.parquet")
    assert run("check", path) == 1
    assert "video missing" in capsys.readouterr().out
    assert run("check", path, "--fix", tmp_path / "fixed") == 0
    out = capsys.readouterr().out
    assert "2 of 4 rows; left out:" in out and "gold answer" in out
    assert read_rows(tmp_path / "fixed/train.parquet") == [sound[0], sound[2]]
    left_out = json.loads((tmp_path / "fixed/train.left_out.json").read_text())
    assert [(found["row"], found["id"], found["kind"]) for found in left_out] == [
        (1, "1", "video missing"),
        (3, "3", "gold answer"),
    ]
    assert run("check", tmp_path / "fixed/train.parquet") == 0


def test_a_file_without_rows_is_an_error(sound):
    with pytest.raises(ValueError, match="empty.parquet: no rows"):
        check({"a.parquet": sound, "empty.parquet": []}, {})


def test_fix_overwrites_nothing_unasked(sound, tmp_path):
    path = tmp_path / "sound.parquet"
    with pytest.raises(FileExistsError, match="--force"):
        run("check", path, "--fix", tmp_path)
    assert run("check", path, "--fix", tmp_path / "f") == 0
    with pytest.raises(FileExistsError, match="--force"):
        run("check", path, "--fix", tmp_path / "f")
    assert run("check", path, "--fix", tmp_path / "f", "--force") == 0


def test_fix_with_nothing_left_is_an_error(sound, make_video, tmp_path):
    for row in sound:
        spoil(row, "video missing", make_video, tmp_path)
    path = write_rows(sound, tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="no items to write"):
        run("check", path, "--fix", tmp_path / "fixed")
