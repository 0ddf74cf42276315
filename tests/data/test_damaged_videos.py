"""No picture differs from what its file shows without a word: damage, rotation, edit lists."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from verl_twgrpo.video import decode as video_module
from verl_twgrpo.video.cache import FrameCache
from verl_twgrpo.video.decode import VideoError, frame_size, prepare_video, probe, read_frames
from verl_twgrpo.video.digest import video_digest
from verl_twgrpo.video.fill import prepare
from verl_twgrpo.video.orientation import Orientation

pytestmark = pytest.mark.slow

LIMITS = {"nframes": 16, "min_pixels": 4 * 784, "max_pixels": 128 * 784}


def textured(path: Path, seed: int, frames: int = 60, codec: str = "libx264") -> Path:
    """Coloured tiles that wander behind a bar: damage shows in them, as it would not in a flat grey."""
    tiles = np.random.default_rng(seed).integers(0, 255, (12, 20, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": "12", "bf": "2"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for k in range(frames):
            picture = np.roll(tiles, 3 * k, 1)
            picture[:, (5 * k) % 160 : (5 * k) % 160 + 8] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def damaged_copies(whole: bytes, trials: range):
    """Copies with 1 to 400 changed bytes: two of three in the media data only, the others anywhere in the file."""
    media = whole.find(b"mdat") + 4
    for trial in trials:
        rng = random.Random(trial)
        copy = bytearray(whole)
        for _ in range(rng.choice([1, 1, 1, 2, 3, 5, 10, 50, 100, 400])):
            copy[rng.randrange(media if trial % 3 else 0, len(whole))] ^= rng.randrange(1, 256)
        yield bytes(copy)


def outcomes(codec: str, trials: range, folder: Path) -> dict[str, int]:
    """How many damaged copies are refused, equal in every sampled pixel, and different without a word."""
    path = textured(folder / "whole.mp4", 0, codec=codec)
    expected = prepare_video({"video": str(path), **LIMITS})[0]
    found = {"refused": 0, "equal": 0, "different": 0}
    for k, content in enumerate(damaged_copies(path.read_bytes(), trials)):
        copy = folder / f"{k}.mp4"
        copy.write_bytes(content)
        try:
            frames, _ = prepare_video({"video": str(copy), **LIMITS})
        except VideoError as error:
            assert str(copy) in str(error)
            found["refused"] += 1
        else:
            same = frames.shape == expected.shape and torch.equal(frames, expected)
            found["equal" if same else "different"] += 1
        copy.unlink()
    return found


# how many of 40 copies may differ without a word. These formats have no checksum: a changed byte may be another legal
# picture. docs/videos.md has the rates of 200 copies.
@pytest.mark.parametrize(("codec", "unseen"), [("libx264", 4), ("mpeg4", 5), ("libvpx-vp9", 0)])
def test_the_decoder_alone_tells_most_damaged_copies(codec, unseen, tmp_path):
    found = outcomes(codec, range(40), tmp_path)
    assert found["different"] <= unseen and found["refused"] >= 20


def test_with_its_digest_no_damaged_copy_is_used(tmp_path):
    path = textured(tmp_path / "whole.mp4", 0)
    digest, whole = video_digest(path), path.read_bytes()
    for k, content in enumerate(damaged_copies(whole, range(40))):
        copy = tmp_path / f"{k}.mp4"
        copy.write_bytes(content)
        video = {"video": str(copy), "digest": digest, **LIMITS}
        with pytest.raises(VideoError, match=f"{k}.mp4"):
            read_frames(video)
        assert prepare(video, FrameCache(tmp_path / "cache")).state == "failed"


@pytest.fixture
def corrupt(tmp_path) -> Path:
    """A video whose third picture group decodes to damaged frames."""
    path = textured(tmp_path / "whole.mp4", 1)
    copy = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    hit = next(packet for packet in packets[24:] if packet.is_keyframe)
    for k in range(hit.pos + hit.size // 3, hit.pos + hit.size // 3 + 40):
        copy[k] ^= 0xA5
    target = tmp_path / "corrupt.mp4"
    target.write_bytes(copy)
    return target


def test_damage_is_refused_by_default_and_noted_where_it_is_kept(corrupt, tmp_path):
    video = {"video": str(corrupt), "digest": "", **LIMITS}
    with pytest.raises(VideoError, match=r"corrupt\.mp4: damaged \(frame \d+"):
        read_frames(video)
    cache = FrameCache(tmp_path / "cache")
    assert prepare(video, cache).state == "failed" and video not in cache
    kept = prepare(video, cache, keep_corrupt=True)
    assert kept.state == "decoded" and kept.notes[0].startswith("damaged")
    assert prepare(video, cache, keep_corrupt=True).state == "cached"
    again = prepare(video, cache)
    assert again.state == "failed" and "--keep-corrupt" in again.reason


def test_damage_in_a_part_that_no_frame_needs_does_no_harm(corrupt):
    # frames 0 and 12 only: the damaged group of pictures is not decoded
    frames, _, _ = read_frames({"video": str(corrupt), "nframes": 2, "video_start": 0.0, "video_end": 0.48})
    assert len(frames) == 2


def test_each_thread_hears_of_its_own_video_only(corrupt, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    fine = textured(tmp_path / "fine.mp4", 2)

    def one(path) -> bool:
        try:
            read_frames({"video": str(path), "nframes": 16})
        except VideoError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, [corrupt, fine] * 12))
    assert found == [False, True] * 12


def test_a_false_alarm_after_a_seek_is_settled_by_a_whole_decode(tmp_path, monkeypatch):
    path = textured(tmp_path / "a.mp4", 3)
    expected = read_frames({"video": str(path), "nframes": 4})[0]
    real = video_module._damage
    calls = []

    def alarm_once(corrupt, log):
        calls.append(1)
        return "damaged" if len(calls) == 1 else real(corrupt, log)

    monkeypatch.setattr(video_module, "_damage", alarm_once)
    assert torch.equal(read_frames({"video": str(path), "nframes": 4})[0], expected) and len(calls) == 2


MATRICES = {
    "90 clockwise": ((0, 1, -1, 0), -1, False),
    "180": ((-1, 0, 0, -1), 2, False),
    "90 counterclockwise": ((0, -1, 1, 0), 1, False),
    "mirrored": ((-1, 0, 0, 1), 0, True),
}


def with_matrix(path: Path, out: Path, matrix: tuple[int, int, int, int]) -> Path:
    """The mp4 file with another matrix in its track header (ISO/IEC 14496-12, 8.3.2)."""
    content = bytearray(path.read_bytes())
    start = content.find(b"tkhd") + 4 + 4 + 20 + 8 + 8
    a, b, c, d = (value << 16 for value in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    out.write_bytes(content)
    return out


@pytest.mark.parametrize("name", MATRICES)
def test_a_rotated_video_is_seen_upright_in_the_cache_and_without(name, tmp_path, monkeypatch):
    matrix, quarter_turns, mirrored = MATRICES[name]
    plain = textured(tmp_path / "plain.mp4", 4)
    turned = with_matrix(plain, tmp_path / "turned.mp4", matrix)
    frames = read_frames({"video": str(turned), "nframes": 4})[0]
    expected = torch.rot90(read_frames({"video": str(plain), "nframes": 4})[0], quarter_turns, (2, 3))
    assert torch.equal(frames, expected.flip(3) if mirrored else expected)
    info = probe(turned)
    assert (info.height, info.width) == frames.shape[2:]
    video = {"video": str(turned), **LIMITS, "digest": ""}
    cache = FrameCache(tmp_path / "cache")
    prepare(video, cache)
    cached, metadata = cache.get(video)
    assert cached.shape[2:] == frame_size(info.height, info.width, video)
    from qwen_vl_utils import vision_process

    monkeypatch.setitem(vision_process.VIDEO_READER_BACKENDS, "ours", read_frames)
    monkeypatch.setattr(vision_process, "get_video_reader_backend", lambda: "ours")
    uncached, _ = vision_process.fetch_video({"type": "video", **video}, return_video_metadata=True)
    assert torch.equal(cached.float(), uncached)


def test_the_rotation_is_the_one_that_ffmpeg_names(tmp_path):
    plain = textured(tmp_path / "plain.mp4", 4, frames=4)
    for matrix, quarter_turns, mirrored in MATRICES.values():
        turned = with_matrix(plain, tmp_path / "turned.mp4", matrix)
        with av.open(str(turned)) as container:
            frame = next(container.decode(video=0))
        if not mirrored:  # frame.rotation: degrees counterclockwise
            assert frame.rotation % 360 == 90 * quarter_turns % 360


def test_another_angle_is_noted(tmp_path):
    turned = with_matrix(textured(tmp_path / "p.mp4", 4, frames=4), tmp_path / "t.mp4", (1, 1, -1, 1))
    assert "rotated by an angle" in probe(turned).notes[0]
    assert Orientation() == Orientation(False, False, False)


def test_a_stream_copied_cut_gives_the_frames_that_it_shows(tmp_path):
    whole = textured(tmp_path / "whole.mp4", 5, frames=100)
    cut = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w", options={"avoid_negative_ts": "disabled"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        shift = int(33 / 25 / source.streams.video[0].time_base)
        for packet in source.demux(video=0):
            if packet.dts is not None and packet.pts >= int(24 / 25 / packet.time_base):  # from the key frame 24 on
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                target.mux(packet)
    with av.open(str(cut)) as container:
        assert container.streams.video[0].frames == 76  # 9 of them hidden by the edit list
    info = probe(cut)
    assert info.frames == 67
    frames, metadata, _ = read_frames({"video": str(cut), "nframes": 16}, info)
    assert metadata["frames_indices"][-1] == 66
    with av.open(str(whole)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for frame, index in zip(frames, metadata["frames_indices"], strict=True):
        assert np.array_equal(frame.permute(1, 2, 0).numpy(), pictures[33 + index])
