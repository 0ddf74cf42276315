"""Annotations and a folder of videos to items whose videos are there; what cannot be used is listed, never replaced.

Images, where annotations have them, lie in the same folder.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from verl_twgrpo.data.prompts import check_text
from verl_twgrpo.data.reading import Unreadable, read_annotations
from verl_twgrpo.data.schema import Item
from verl_twgrpo.data.sources import Skipped, Source
from verl_twgrpo.data.sources import source as source_of
from verl_twgrpo.progress import progress
from verl_twgrpo.rewards import validate
from verl_twgrpo.video.digest import video_digests

LONGEST_PATH = 4096 - 256  # Linux' PATH_MAX, less what stands before


@dataclass
class Conversion:
    """``items`` can be trained on; ``left_out`` lists (id, reason); ``counts`` has every reason with its number."""

    items: list[Item] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)

    def leave_out(self, reason: str, identity: str = "", detail: str = "") -> None:
        self.counts[reason] += 1
        if identity:
            self.left_out.append((identity, f"{reason}: {detail}" if detail else reason))


class VideoFolder:
    """The files under a folder, found by the paths that annotations have for them."""

    def __init__(self, folder: str | Path) -> None:
        """Raises ``NotADirectoryError`` if there is no such folder."""
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise NotADirectoryError(f"{folder}: no such folder of videos")
        self._by_name: dict[str, list[str]] | None = None

    def find(self, annotated: str, *, by_name: bool) -> str | None:
        """Path of the video that annotations call ``annotated``, or None.

        That path below the folder counts, and so does what is left of it without leading folders
        ("/MVBench/clevrer/video_validation/v.mp4" -> "video_validation/v.mp4"). Only with ``by_name`` may that be the
        bare file name, in whatever subfolder: two videos called 0.mp4 are different videos.
        Raises ``ValueError`` if several files have the name.
        """
        if "\0" in annotated or len(annotated) > LONGEST_PATH:
            raise ValueError(f"video: {annotated!r:.60} cannot be a path")
        parts = [part for part in PurePosixPath(annotated).parts if part not in ("/", "..", ".")]
        shortest = 1 if by_name or len(parts) == 1 else 2
        for first in range(len(parts) - shortest + 1):
            path = self.folder.joinpath(*parts[first:])
            # os.path: a name that is too long is no file, and no error
            if os.path.isfile(path):
                return os.path.abspath(path)
        found = self._names().get(parts[-1], []) if by_name and parts else []
        if len(found) > 1:
            raise ValueError(f"{annotated}: {len(found)} files have this name under {self.folder}: {', '.join(found)}")
        return found[0] if found else None

    def _names(self) -> dict[str, list[str]]:
        if self._by_name is None:
            self._by_name = {}
            for folder, _, names in os.walk(self.folder):
                for name in names:
                    self._by_name.setdefault(name, []).append(os.path.abspath(os.path.join(folder, name)))
        return self._by_name


def convert(
    source: str,
    annotations: str,
    videos: str | Path,
    split: str | None = None,
    workers: int = 4,
    *,
    strict: bool = False,
) -> Conversion:
    """Convert one file (or hub data set) of ``source``; ``split`` defaults to the source's usual one.

    A question that comes twice in the same words is taken once. A row that is not in the source's schema, or has the id
    of a different question, is left out with file, row, field and reason; with ``strict`` it raises ``ValueError``.
    Raises ``ValueError`` as well if nothing is left.
    """
    chosen = source_of(source)
    folder = VideoFolder(videos)
    split = split or chosen.split
    result = Conversion()
    seen: dict[str, tuple[str, Item]] = {}
    for where, found in progress(_found(chosen, annotations, split), None, "annotations", "row"):
        try:
            item = _usable(where, found, seen, folder, annotations, result, chosen.unique_video_names)
        except ValueError as error:
            if strict:
                raise ValueError(f"{where}: {error}") from None
            result.counts["bad row"] += 1
            result.left_out.append((where, str(error)))
            continue
        if item is not None:
            result.items.append(item)
    digests, unreadable = video_digests((item.media for item in result.items), workers)
    for item in result.items:
        if item.media in unreadable:
            result.leave_out(f"{_kind(item)} unreadable", item.id, f"{item.media}: {unreadable[item.media]}")
    result.items = [
        replace(item, video_digest=digests[item.media]) for item in result.items if item.media not in unreadable
    ]
    if not result.items:
        first = f"; the first: {': '.join(result.left_out[0])}" if result.left_out else ""
        raise ValueError(f"{annotations}: no item is left ({_summary(result.counts) or 'the file has no rows'}{first})")
    validate(result.items)
    return result


def _usable(
    where: str,
    found: Item | Skipped | ValueError,
    seen: dict[str, tuple[str, Item]],
    folder: VideoFolder,
    annotations: str,
    result: Conversion,
    by_name: bool,
) -> Item | None:
    """The item with its video's path, or None where ``result`` says why it is left out."""
    if isinstance(found, ValueError):
        raise found
    if isinstance(found, Skipped):
        result.leave_out(found.reason, found.id)
        return None
    check_text(found)
    if found.id in seen:
        where_before, before = seen[found.id]
        if before != found:
            raise ValueError(f"id {found.id} is another question in {where_before}")
        result.leave_out("repeated question", found.id, where)
        return None
    path = folder.find(found.media, by_name=by_name)
    seen[found.id] = (where, found)
    kind = _kind(found)
    if path is None:
        result.leave_out(f"{kind} missing", found.id, f"{found.media} under {folder.folder}")
        return None
    origin = {"annotations": os.path.basename(annotations), "row": where.rpartition(" ")[2], kind: found.media}
    provenance = {**origin, **found.provenance}
    if found.image:
        return replace(found, image=path, provenance=provenance)
    return replace(found, video=path, provenance=provenance)


def _kind(item: Item) -> str:
    return "image" if item.image else "video"


def _found(source: Source, annotations: str, split: str) -> Iterator[tuple[str, Item | Skipped | ValueError]]:
    for where, row in read_annotations(annotations, split):
        if isinstance(row, Unreadable):
            yield where, ValueError(row.reason)
            continue
        try:
            found = list(source.convert(row, split))
        except (ValueError, RecursionError) as error:
            yield where, ValueError(str(error))
            continue
        for one in found:
            yield where, one


def _summary(counts: Counter) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in counts.most_common())
