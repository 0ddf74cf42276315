"""Prepared frames on disk, one file per video and way of sampling it: written once, read by every step of training."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from verl_twgrpo.files import atomic_write
from verl_twgrpo.video.digest import known_digest

Frames = tuple[torch.Tensor, dict[str, Any]]


def video_key(video: Mapping[str, Any]) -> str:
    """The same for the same video sampled in the same way: a key to look each up once."""
    return repr(sorted(video.items()))


class FrameCache:
    """Frames by content of the video file, sampling and pixel limits: a moved video is found, a changed one is not.

    Each file holds a digest of its own content, which ``get`` compares. ``get`` keeps the last ``keep`` videos in
    memory, so that the rollouts of one prompt share one tensor. Safe to use from
    several threads.
    """

    def __init__(self, folder: str | Path, image_patch_size: int = 14, keep: int = 16) -> None:
        self.folder = Path(folder)
        self.image_patch_size = image_patch_size
        self._keep = keep
        self._recent: OrderedDict[Path, Frames] = OrderedDict()
        self._lock = threading.Lock()

    def path(self, video: Mapping[str, Any]) -> Path:
        """Where the frames of ``video`` lie: a dict with nframes, min_pixels, max_pixels and digest (or video)."""
        digest = video.get("digest") or known_digest(str(video["video"]).removeprefix("file://"))
        sampling = f"{video['nframes']}f-{video['min_pixels']}-{video['max_pixels']}px-{self.image_patch_size}"
        return self.folder / digest[:2] / f"{digest}-{sampling}.safetensors"

    def __contains__(self, video: Mapping[str, Any]) -> bool:
        return self.path(video).is_file()

    def missing(self, rows: Iterable[Mapping[str, Any]]) -> list[tuple[int, str]]:
        """Number of each row without its frames, and one sentence; a look whether the file is there, no more.

        Only a row without the digest of its video has that video read (once for all its rows).
        """
        found, seen = [], {}
        for number, row in enumerate(rows):
            for video in row["videos"]:
                key = video_key(video)
                if key not in seen:
                    try:
                        seen[key] = "" if video in self else self._absent(video)
                    except OSError as error:
                        seen[key] = f"{video['video']}: cannot be read ({error.strerror})"
                if seen[key]:
                    found.append((number, seen[key]))
        return found

    def damage(self, video: Mapping[str, Any]) -> str:
        """Why the frames of ``video`` cannot be used, though they are there; "" if they are as they were written."""
        try:
            self._read(self.path(video), video)
        except OSError as error:
            return str(error)
        return ""

    def get(self, video: Mapping[str, Any]) -> Frames:
        """Frames as uint8 [T, 3, height, width] and their metadata, as ``prepare_video`` gives them, without decoding.

        The tensor is shared: do not write to it. Raises ``FileNotFoundError`` if the frames were not prepared.
        """
        path = self.path(video)
        with self._lock:
            if path not in self._recent:
                self._recent[path] = self._read(path, video)
            self._recent.move_to_end(path)
            frames = self._recent[path]
            while len(self._recent) > self._keep:
                self._recent.popitem(last=False)
        return frames

    def notes(self, video: Mapping[str, Any]) -> list[str]:
        """What was noted about ``video`` when its frames were prepared."""
        with self._opened(self.path(video), video) as file:
            return json.loads(file.metadata()["about"])["notes"]

    def shape(self, video: Mapping[str, Any]) -> tuple[int, ...]:
        """(T, 3, height, width) of the frames of ``video``, without reading them."""
        with self._opened(self.path(video), video) as file:
            return tuple(file.get_slice("frames").get_shape())

    def put(self, video: Mapping[str, Any], frames: torch.Tensor, metadata: dict[str, Any], notes: list[str]) -> None:
        """Store frames; they appear whole or not at all, also if the machine stops in between."""
        # one entry: safetensors writes several in random order, and the same frames shall give the same bytes
        about = {"metadata": metadata, "notes": notes}
        about["sha256"] = _content_digest(frames, about)
        with atomic_write(self.path(video)) as part:
            try:
                save_file({"frames": frames.contiguous()}, part, metadata={"about": json.dumps(about)})
            except SafetensorError as error:
                raise OSError(f"{self.path(video)}: cannot be written ({error})") from None

    def _read(self, path: Path, video: Mapping[str, Any]) -> Frames:
        try:
            with self._opened(path, video) as file:
                frames, about = file.get_tensor("frames"), json.loads(file.metadata()["about"])
            metadata, written = about["metadata"], about.get("sha256")
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(path, str(error)) from None
        if written is None:
            raise self._damaged(path, "no digest: an earlier version wrote it")
        if written != _content_digest(frames, about):
            raise self._damaged(path, "its content is not what was written")
        return frames, metadata

    def _opened(self, path: Path, video: Mapping[str, Any]) -> Any:
        if not path.is_file():
            raise FileNotFoundError(self._absent(video))
        try:
            return safe_open(path, "pt")
        except SafetensorError as error:
            raise self._damaged(path, str(error)) from None

    def _absent(self, video: Mapping[str, Any]) -> str:
        return (
            f"{video['video']}: not in the frame cache {self.folder} with {video['nframes']} frames of "
            f"{video['min_pixels']} to {video['max_pixels']} pixels; run `verl-twgrpo data frames`"
        )

    def _damaged(self, path: Path, reason: str) -> OSError:
        return OSError(f"{path}: damaged ({reason}); run `verl-twgrpo data frames` again, which replaces it")


def _content_digest(frames: torch.Tensor, about: Mapping[str, Any]) -> str:
    """SHA-256 of the frames' bytes and shape, and of what is written about them."""
    facts = {"shape": list(frames.shape), "metadata": about["metadata"], "notes": about["notes"]}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    digest.update(frames.contiguous().numpy())
    return digest.hexdigest()
