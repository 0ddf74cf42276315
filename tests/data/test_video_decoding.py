"""Videos to frames: the same numbers as qwen-vl-utils, and a reason for every video that cannot be used."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verl_twgrpo.torchvision_ops import declare_missing_ops
from verl_twgrpo.video import decode as video_module
from verl_twgrpo.video.decode import VideoError, frame_size, prepare_video, probe, read_frames, sample_indices

pytestmark = pytest.mark.slow

LIMITS = {"min_pixels": 4 * 784, "max_pixels": 128 * 784}


@pytest.fixture
def fetch_video(monkeypatch):
    """qwen-vl-utils' own ``fetch_video``, reading with our reader."""
    declare_missing_ops()
    from qwen_vl_utils import vision_process

    monkeypatch.setitem(vision_process.VIDEO_READER_BACKENDS, "ours", read_frames)
    monkeypatch.setattr(vision_process, "get_video_reader_backend", lambda: "ours")
    return vision_process.fetch_video


def all_frames(path) -> torch.Tensor:
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("tokens", [128, 256])
def test_usual_videos_give_what_qwen_vl_utils_gives(usual_video, tokens, fetch_video):
    video = {
        "video": str(usual_video),
        "nframes": 16,
        "min_pixels": 3136,
        "max_pixels": tokens * 784,
    }
    frames, metadata = prepare_video(video)
    theirs, their_metadata = fetch_video({"type": "video", **video}, return_video_metadata=True)
    assert frames.dtype == torch.uint8 and torch.equal(frames.float(), theirs)
    assert metadata == their_metadata
    assert frames.shape[2] * frames.shape[3] <= tokens * 784
    assert metadata["total_num_frames"] == int(usual_video.stem)


def test_usual_videos_look_as_another_decoder_sees_them(usual_video):
    cv2 = pytest.importorskip("cv2")
    path = str(usual_video)
    frames, metadata, _ = read_frames({"video": path, "nframes": 4})
    capture = cv2.VideoCapture(path)
    pictures = [capture.read()[1] for _ in range(metadata["total_num_frames"])]
    assert not capture.read()[0]
    for frame, index in zip(frames, metadata["frames_indices"], strict=True):
        theirs = torch.from_numpy(pictures[index][:, :, ::-1].copy()).permute(2, 0, 1)
        # the two convert colours differently by a level or two; a neighbouring frame differs by more
        assert (frame.float() - theirs.float()).abs().mean() < 2.5


def test_the_processor_makes_the_same_pixels_of_bytes_as_of_verls_floats(make_video, qwen_processor):
    frames, metadata = prepare_video({"video": str(make_video("a.mp4")), "nframes": 4, **LIMITS})
    text = "<|vision_start|><|video_pad|><|vision_end|>"
    pixels = [
        qwen_processor(
            text=[text], videos=[video], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt"
        )["pixel_values_videos"]
        for video in (frames, frames.float())
    ]
    assert torch.equal(*pixels)


@given(
    st.integers(8, 2200),
    st.integers(8, 2200),
    st.integers(1, 200),
    st.integers(1, 1200),
    st.integers(1, 32).map(lambda n: 2 * n),
    st.sampled_from([14, 16]),
)
def test_frame_sizes_are_those_of_qwen_vl_utils(height, width, low, high, nframes, patch):
    if max(height, width) > 200 * min(height, width):
        return
    declare_missing_ops()
    from qwen_vl_utils import vision_process
    from torchvision.transforms import functional

    video = {"video": "x", "nframes": nframes, "min_pixels": low * 784, "max_pixels": max(low, high) * 784}
    seen = {}

    def resize(frames, size, **_):
        seen["size"] = tuple(size)
        return frames

    with pytest.MonkeyPatch.context() as patched:
        blank = (torch.empty(nframes, 3, height, width, device="meta"), {}, 1.0)
        patched.setitem(vision_process.VIDEO_READER_BACKENDS, "blank", lambda video: blank)
        patched.setattr(vision_process, "get_video_reader_backend", lambda: "blank")
        patched.setattr(functional, "resize", resize)
        vision_process.fetch_video(video, image_patch_size=patch)
    assert frame_size(height, width, video, patch) == seen["size"]


@pytest.mark.parametrize("options", [{}, {"key_every": 1}, {"frames": 250}])
def test_skipping_to_key_frames_gives_the_frames_of_a_full_decode(options, make_video):
    path = make_video("a.mp4", **{"frames": 100, **options})
    frames, metadata, _ = read_frames({"video": str(path), "nframes": 16})
    assert torch.equal(frames, all_frames(path)[metadata["frames_indices"]])


def test_a_file_without_times_of_its_own_is_decoded_in_order(make_video):
    path = make_video("a.mp4", frames=100)
    video = {"video": str(path), "nframes": 16}
    untimed = dataclasses.replace(probe(path), times=(), keyframes=())
    assert torch.equal(read_frames(video, untimed)[0], read_frames(video)[0])


def test_a_long_video_is_not_decoded_whole(make_video, monkeypatch):
    path = make_video("a.mp4", frames=600, key_every=10)
    info = probe(path)
    assert info.frames == 600 and len(info.keyframes) >= 60
    opened = video_module._opened
    decoded = []

    @contextmanager
    def counting(path):
        with opened(path) as (container, log):
            decode = container.decode
            counted = SimpleNamespace(
                streams=container.streams,
                seek=container.seek,
                decode=lambda stream: (decoded.append(frame) or frame for frame in decode(stream)),
            )
            yield counted, log

    monkeypatch.setattr(video_module, "_opened", counting)
    frames, metadata, _ = read_frames({"video": str(path), "nframes": 4}, info)
    assert 4 <= len(decoded) <= 4 * 10
    assert torch.equal(frames, all_frames(path)[metadata["frames_indices"]])


def test_indices_are_spread_evenly_from_the_first_to_the_last_frame():
    assert sample_indices(0, 239, 16) == torch.linspace(0, 239, 16).round().long().tolist()
    assert sample_indices(0, 15, 16) == list(range(16))


@pytest.mark.parametrize("frames", [1, 2, 9, 15])
def test_a_short_video_has_its_frames_repeated_in_order(frames, make_video):
    path = make_video("short.mp4", frames=frames)
    prepared, metadata = prepare_video({"video": str(path), "nframes": 16, **LIMITS})
    indices = metadata["frames_indices"]
    assert prepared.shape[0] == 16 and indices == sorted(indices)
    assert set(indices) == set(range(frames))
    for k in range(1, 16):
        assert torch.equal(prepared[k], prepared[k - 1]) == (indices[k] == indices[k - 1])


def test_the_reader_takes_frames_a_second_and_cuts_as_qwen_vl_utils_does(make_video):
    path = str(make_video("a.mp4", frames=100))  # 4 s at 25 a second
    frames, metadata, sampled = read_frames({"video": path, "fps": 2.0})
    assert len(frames) == 8 and sampled == pytest.approx(2.0)
    frames, metadata, _ = read_frames({"video": path, "nframes": 4, "video_start": 1.0, "video_end": 2.0})
    assert metadata["frames_indices"][0] == 25 and metadata["frames_indices"][-1] == 50


def shown_at(path, seconds):
    """The frame on the screen at a time, found by decoding the whole file."""
    with av.open(str(path)) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    first = frames[0][0]
    return [picture for time, picture in frames if time - first <= seconds + 1e-6][-1]


@pytest.mark.parametrize("cut", [{}, {"video_start": 2.0, "video_end": 8.0}])
def test_a_variable_rate_is_sampled_evenly_in_time(cut, make_video):
    # of five frames one stays for 0.4 s and four for 0.04 s: 0.56 s, 20 times
    path = make_video("a.mp4", frames=100, variable_rate=True)
    frames, metadata, rate = read_frames({"video": str(path), "nframes": 12, **cut})
    first, last = cut.get("video_start", 0.0), cut.get("video_end", 19 * 0.56 + 4 * 0.04)
    for k, picture in enumerate(frames):
        expected = shown_at(path, first + (last - first) * k / 11)
        assert np.array_equal(picture.permute(1, 2, 0).numpy(), expected)
    assert rate == pytest.approx(12 / (last - first + 0.04), rel=1e-3)
    seconds = [index / metadata["fps"] for index in metadata["frames_indices"]]
    assert len(seconds) == 12
    # a frame's own time: not after the moment that it is shown for, and not longer ago than it stays
    assert all(-1e-3 <= first + (last - first) * k / 11 - second < 0.401 for k, second in enumerate(seconds))


def test_a_variable_rate_is_noted(make_video):
    assert probe(make_video("a.mp4")).notes == ()
    (note,) = probe(make_video("b.mp4", variable_rate=True)).notes
    assert note.startswith("variable rate")


def test_a_matroska_file_that_ends_early_is_noted(make_video, tmp_path):
    whole = make_video("a.mkv", frames=200)
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    assert probe(whole).notes == ()
    assert "ends early" in probe(tmp_path / "cut.mkv").notes[0]


@pytest.mark.parametrize("name", ["a b.mp4", "vidéo 视频.mp4", "100%.mp4", "a'b\"c.mp4", "#1.mp4"])
def test_any_file_name_is_opened(name, make_video):
    assert probe(make_video(name, frames=4)).frames == 4


def fast_start(path, out):
    """Rewrite with the index at the front, so that a truncated file can still be opened."""
    with av.open(str(path)) as source, av.open(str(out), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return out.read_bytes()


def empty_mp4(make_video, tmp_path):
    path = tmp_path / "empty.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    return path


def broken(kind, make_video, tmp_path):
    if kind == "missing":
        return tmp_path / "nowhere.mp4"
    if kind == "zero frames":
        return empty_mp4(make_video, tmp_path)
    path = tmp_path / "bad.mp4"
    if kind == "sound only":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=8000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path
    whole = fast_start(make_video("whole.mp4", frames=100), tmp_path / "fast.mp4")
    damaged = bytearray(whole)
    damaged[len(whole) // 2 : len(whole) * 3 // 4] = b"\xff" * (len(whole) * 3 // 4 - len(whole) // 2)
    content = {
        "no bytes": b"",
        "not a video": b"<html>404 Not Found</html>" * 50,
        "index lost": make_video("w.mp4", frames=100).read_bytes()[:-400],
        "truncated": whole[: len(whole) * 2 // 3],
        "damaged": bytes(damaged),
    }
    path.write_bytes(content[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no such video"),
        ("no bytes", "broken video"),
        ("not a video", "broken video"),
        ("index lost", "broken video"),
        ("truncated", "truncated, [0-9]+ of 100 frames"),
        ("damaged", "broken video|truncated"),
        ("zero frames", "zero frames|broken video|no video stream"),
        ("sound only", "no video stream"),
    ],
)
def test_videos_that_cannot_be_used_are_named_with_the_reason(kind, reason, make_video, tmp_path):
    path = broken(kind, make_video, tmp_path)
    with pytest.raises(VideoError, match=reason) as caught:
        prepare_video({"video": str(path), "nframes": 16, **LIMITS})
    assert str(path) in str(caught.value)
