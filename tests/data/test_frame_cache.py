"""Frames are decoded once, into files keyed by content, and read back as they would have been decoded."""

from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from verl_twgrpo.data.parquet import FrameLimits, read_rows, write_parquet
from verl_twgrpo.video import decode as video_module
from verl_twgrpo.video import fill as frames_module
from verl_twgrpo.video.cache import FrameCache
from verl_twgrpo.video.decode import prepare_video
from verl_twgrpo.video.digest import video_digest
from verl_twgrpo.video.fill import prepare, prepare_all, report, videos_of


def entry(path, nframes=4, tokens=128, digest=None) -> dict:
    """A video's dict as rows of our parquet files have it."""
    digest = video_digest(path) if digest is None else digest
    return {"video": str(path), "nframes": nframes, "min_pixels": 3136, "max_pixels": tokens * 784, "digest": digest}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}


@pytest.fixture
def decodes(monkeypatch) -> list[str]:
    """The paths that were decoded, in order."""
    paths = []
    real = video_module._decode

    def counting(path, *rest):
        paths.append(path)
        return real(path, *rest)

    monkeypatch.setattr(video_module, "_decode", counting)
    return paths


@pytest.mark.slow
def test_cached_usual_videos_are_what_qwen_vl_utils_would_decode(usual_video, tmp_path, monkeypatch):
    video = entry(usual_video, nframes=16)
    assert prepare(video, FrameCache(tmp_path)).state == "decoded"
    frames, metadata = FrameCache(tmp_path).get(video)
    from qwen_vl_utils import vision_process

    monkeypatch.setitem(vision_process.VIDEO_READER_BACKENDS, "ours", video_module.read_frames)
    monkeypatch.setattr(vision_process, "get_video_reader_backend", lambda: "ours")
    theirs, their_metadata = vision_process.fetch_video({"type": "video", **video}, return_video_metadata=True)
    assert torch.equal(frames.float(), theirs) and metadata == their_metadata


@pytest.fixture
def reads(monkeypatch):
    """The files that caches read."""
    found, read = [], FrameCache._read
    monkeypatch.setattr(FrameCache, "_read", lambda self, path, video: found.append(path) or read(self, path, video))
    return found


def test_n_rollouts_of_a_prompt_decode_nothing_and_read_its_frames_once(make_video, tmp_path, decodes, reads):
    videos = [entry(make_video(f"{k}.mp4", shade=40 * k)) for k in range(3)]
    prepare_all(videos, tmp_path / "cache", ray=False)
    assert len(decodes) == 3
    cache = FrameCache(tmp_path / "cache")
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(cache.get, [video for video in videos for _ in range(8)]))
    assert len(decodes) == len(reads) == 3
    assert len({frames.data_ptr() for frames, _ in got}) == 3


def test_memory_holds_the_last_videos_only(make_video, tmp_path, reads):
    videos = [entry(make_video(f"{k}.mp4", shade=40 * k)) for k in range(3)]
    prepare_all(videos, tmp_path / "cache", ray=False)
    cache = FrameCache(tmp_path / "cache", keep=2)
    for video in (0, 1, 0, 2, 0, 1):
        cache.get(videos[video])
    assert len(reads) == 4  # 0, 1, 2, and 1 again, which 2 had pushed out


def test_another_sampling_limit_or_patch_size_is_another_entry(make_video, tmp_path):
    path = make_video("a.mp4")
    cache = FrameCache(tmp_path / "c")
    videos = [entry(path), entry(path, nframes=6), entry(path, tokens=4)]
    assert [prepare(video, cache).state for video in videos] == ["decoded"] * 3
    assert len({cache.get(video)[0].shape for video in videos}) == 3
    assert videos[0] not in FrameCache(tmp_path / "c", image_patch_size=16)


def test_a_moved_video_is_found_and_a_changed_one_is_not(make_video, tmp_path):
    path = make_video("a.mp4")
    cache = FrameCache(tmp_path / "c")
    prepare(entry(path), cache)
    moved = Path(shutil.copy(path, tmp_path / "b.mp4"))
    assert entry(moved) in cache and entry(moved, digest="") in cache
    make_video("a.mp4", shade=90)
    assert entry(path) not in cache and entry(path, digest="") not in cache


def test_training_needs_the_digest_only_not_the_video(make_video, tmp_path):
    path = make_video("a.mp4")
    video = entry(path)
    prepare(video, FrameCache(tmp_path / "c"))
    path.unlink()
    assert FrameCache(tmp_path / "c").get(video)[0].shape == (4, 3, 56, 84)
    assert FrameCache(tmp_path / "c").shape(video) == (4, 3, 56, 84)


def test_frames_that_were_not_prepared_are_an_error_that_says_what_to_do(make_video, tmp_path, decodes):
    video = entry(make_video("a.mp4"))
    with pytest.raises(FileNotFoundError, match=r"a\.mp4: not in the frame cache .* run `verl-twgrpo data frames`"):
        FrameCache(tmp_path / "c").get(video)
    assert decodes == []


def test_a_damaged_entry_is_an_error_that_says_what_to_do(make_video, tmp_path):
    video = entry(make_video("a.mp4"))
    cache = FrameCache(tmp_path / "c")
    prepare(video, cache)
    cache.path(video).write_bytes(cache.path(video).read_bytes()[:100])
    with pytest.raises(OSError, match="damaged .* again"):
        cache.get(video)


def test_a_run_that_was_stopped_goes_on_where_it_was(make_video, tmp_path, decodes, monkeypatch):
    videos = [entry(make_video(f"{k}.mp4", shade=40 * k)) for k in range(4)]
    real = frames_module.prepare

    def stopping(video, cache, **options):
        if video is videos[2]:
            raise KeyboardInterrupt
        return real(video, cache, **options)

    monkeypatch.setattr(frames_module, "prepare", stopping)
    with pytest.raises(KeyboardInterrupt):
        prepare_all(videos, tmp_path / "c", workers=1, ray=False)
    monkeypatch.setattr(frames_module, "prepare", real)
    done = len(decodes)
    states = [result.state for result in prepare_all(videos, tmp_path / "c", workers=1, ray=False)]
    assert 2 <= done < 4 and states.count("cached") == done and len(decodes) == 4


def test_an_entry_appears_whole_or_not_at_all(make_video, tmp_path, monkeypatch):
    video = entry(make_video("a.mp4"))
    cache = FrameCache(tmp_path / "c")

    def out_of_space(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", out_of_space)
    with pytest.raises(OSError, match="no space left"):
        prepare(video, cache)
    assert video not in cache and [p for p in (tmp_path / "c").rglob("*") if p.is_file()] == []


def test_two_runs_at_once_do_no_harm(make_video, tmp_path):
    videos = [entry(make_video(f"{k}.mp4", shade=40 * k)) for k in range(3)]
    runs = [threading.Thread(target=prepare_all, args=(videos, tmp_path / "c"), kwargs={"ray": False}) for _ in "ab"]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    for video in videos:
        assert torch.equal(FrameCache(tmp_path / "c").get(video)[0], prepare_video(video)[0])
    assert len([p for p in (tmp_path / "c").rglob("*") if p.is_file()]) == 3


def test_the_result_does_not_depend_on_the_number_of_workers(make_video, tmp_path):
    videos = [entry(make_video(f"{k}.mp4", shade=40 * k)) for k in range(5)]
    results = [prepare_all(videos, tmp_path / str(w), workers=w, ray=False) for w in (1, 4)]
    assert results[0] == results[1] and [result.video for result in results[0]] == [video["video"] for video in videos]
    assert contents(tmp_path / "1") == contents(tmp_path / "4") and len(contents(tmp_path / "1")) == 5


def test_unusable_short_and_variable_rate_videos_are_reported(make_video, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    changed = entry(make_video("changed.mp4", shade=20))
    make_video("changed.mp4", shade=80)
    videos = [
        entry(make_video("good.mp4")),
        entry(make_video("short.mp4", frames=3)),
        entry(make_video("vfr.mp4", variable_rate=True)),
        entry(tmp_path / "bad.mp4"),
        {**entry(tmp_path / "bad.mp4"), "video": str(tmp_path / "gone.mp4")},
        changed,
    ]
    results = prepare_all(videos, tmp_path / "c", ray=False)
    assert [result.state for result in results] == ["decoded"] * 3 + ["failed"] * 3
    assert results[1].notes == ("short: 3 frames, repeated to 4",)
    assert results[2].notes[0].startswith("variable rate")
    assert results[3].reason.startswith("broken video")
    assert results[4].reason == "no such video"
    assert results[5].reason.startswith("changed since it was converted")
    summary = report(results)
    assert (summary["videos"], summary["decoded"], summary["cached"], summary["failed"]) == (6, 3, 0, 3)
    assert [found["video"] for found in summary["failures"]] == [video["video"] for video in videos[3:]]
    again = prepare_all(videos, tmp_path / "c", ray=False)
    assert [result.state for result in again] == ["cached"] * 3 + ["failed"] * 3
    assert [result.notes for result in again] == [result.notes for result in results]


def test_a_row_without_a_digest_is_prepared_and_found(make_video, tmp_path):
    video = entry(make_video("a.mp4"), digest="")
    cache = FrameCache(tmp_path / "c")
    assert [prepare(video, cache).state for _ in range(2)] == ["decoded", "cached"]
    assert cache.get(video)[0].shape[0] == 4


def test_each_video_of_a_file_is_prepared_once(make_item, make_video, tmp_path):
    path = str(make_video("a.mp4"))
    items = [make_item(id=str(k), video=path, video_digest=video_digest(path)) for k in range(5)]
    rows = read_rows(write_parquet(items, tmp_path / "a.parquet", limits=FrameLimits(nframes=4)))
    assert videos_of(rows) == [entry(path)]


@pytest.mark.e2e
def test_ray_gives_the_same_result(make_video, tmp_path):
    ray = pytest.importorskip("ray")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    videos = [entry(make_video(f"{k}.mp4", shade=40 * k)) for k in range(3)] + [entry(tmp_path / "bad.mp4")]
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        over_ray = prepare_all(videos, tmp_path / "ray", ray=True)
    finally:
        ray.shutdown()
    assert over_ray == prepare_all(videos, tmp_path / "here", ray=False)
    assert contents(tmp_path / "ray") == contents(tmp_path / "here") and len(contents(tmp_path / "ray")) == 3
