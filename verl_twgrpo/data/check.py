"""Everything that would go wrong in training, found before it: rows of parquet files against videos and prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from verl_twgrpo.data.images import image_problems, image_shape
from verl_twgrpo.data.inversion import contradictory_options
from verl_twgrpo.data.parquet import from_row
from verl_twgrpo.data.prompts import template_turns
from verl_twgrpo.data.rows import row_problem
from verl_twgrpo.progress import progress
from verl_twgrpo.rewards import check_gold
from verl_twgrpo.torchvision_ops import declare_missing_ops
from verl_twgrpo.video.cache import FrameCache, video_key
from verl_twgrpo.video.decode import frame_size, prepare_video, probe
from verl_twgrpo.video.digest import video_digests
from verl_twgrpo.video.fill import last_failures

Rows = Sequence[Mapping[str, Any]]
# file, number of the row in it, row
Located = list[tuple[str, int, Mapping[str, Any]]]
SHOWN_PER_KIND = 10


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one row of one file."""

    kind: str
    file: str
    row: int
    id: str
    message: str


def check(
    training: Mapping[str, Rows],
    validation: Mapping[str, Rows],
    *,
    cache: FrameCache | None = None,
    prompt_length: Callable[[Mapping[str, Any], tuple[int, ...]], int] | None = None,
    max_prompt_length: int = 4096,
    image_patch_size: int = 14,
    workers: int = 4,
) -> list[Finding]:
    """All findings, by file and row. ``training`` and ``validation`` are rows by file name, in whatever state.

    ``prompt_length(row, shape)`` counts a row's tokens, given its frames' shape (T, 3, height, width) or its image's
    (3, height, width); without it lengths are not checked. With ``cache`` the frames have to be prepared, and are read;
    without it each video is decoded, as training would do it. Rows of ``training`` whose video or image is in
    ``validation`` are findings, not the other way round. Raises ``ValueError`` naming a file without rows.
    """
    everything = {**training, **validation}
    for file, rows in everything.items():
        if not rows:
            raise ValueError(f"{file}: no rows (verl cannot train on an empty file)")
    findings = [
        Finding("not a row", file, number, _id(row), problem)
        for file, number, row in _all(everything)
        if (problem := row_problem(row))
    ]
    unusable = {(finding.file, finding.row) for finding in findings}

    def usable(files: Mapping[str, Rows]) -> Located:
        return [entry for entry in _all(files) if (entry[0], entry[1]) not in unusable]

    located = usable(everything)
    digests, unreadable = video_digests((video["video"] for _, _, row in located for video in row["videos"]), workers)
    for part in (training, validation):
        findings += _repeated_ids(usable(part))
    findings += _shared_videos(usable(training), usable(validation))
    looks = _look_at_videos(located, digests, unreadable, cache, image_patch_size, workers)
    for file, number, row in located:
        problems = list(_row_problems(row))
        problems += [look for video in row["videos"] if (look := looks[video_key(video)])]
        problems += image_problems(row.get("images") or [], image_patch_size)
        if prompt_length and not problems:
            shape = (
                frames_shape(row["videos"][0], cache, image_patch_size)
                if row["videos"]
                else image_shape(row["images"][0], image_patch_size)
            )
            length = prompt_length(row, shape)
            if length > max_prompt_length:
                problems.append(("prompt too long", f"{length} tokens, limit {max_prompt_length}"))
        findings += [Finding(kind, file, number, _id(row), message) for kind, message in problems]
    order = {file: k for k, file in enumerate(everything)}
    return sorted(findings, key=lambda finding: (order[finding.file], finding.row, finding.kind))


def frames_shape(video: Mapping[str, Any], cache: FrameCache | None, image_patch_size: int) -> tuple[int, ...]:
    """(T, 3, height, width) that the frames of ``video`` have or will have; nothing is decoded."""
    if cache is not None:
        return cache.shape(video)
    info = probe(video["video"])
    return (video["nframes"], 3, *frame_size(info.height, info.width, video, image_patch_size))


def prompt_counter(model: str) -> Callable[[Mapping[str, Any], tuple[int, ...] | None], int]:
    """A ``prompt_length`` for ``check`` that counts with the processor of the checkpoint ``model``.

    The count is that of verl's own filter (RLHFDataset.maybe_filter_out_long_prompts): chat template, tokenizer, and a
    placeholder for every visual token. The processor runs once for each shape of frames; blank ones do. The shape of a
    row without a video or image is None.
    """
    import torch

    declare_missing_ops()  # the processor imports torchvision
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(model)
    visual_tokens: dict[tuple[int, ...], int] = {}

    def text_tokens(text: str) -> int:
        return len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def length(row: Mapping[str, Any], shape: tuple[int, ...] | None) -> int:
        turns = template_turns(row["prompt"])
        text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        if shape is None:
            return text_tokens(text)
        if shape not in visual_tokens:
            blank = torch.zeros(shape, dtype=torch.uint8)
            if len(shape) == 3:
                inputs = processor(text=[text], images=[blank], return_tensors="pt")
            else:
                metadata = {"fps": 1.0, "frames_indices": list(range(shape[0])), "total_num_frames": shape[0]}
                inputs = processor(
                    text=[text], videos=[blank], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt"
                )
            visual_tokens[shape] = len(inputs["input_ids"][0]) - text_tokens(text)
        return text_tokens(text) + visual_tokens[shape]

    return length


def table(findings: Sequence[Finding]) -> str:
    """Findings as a text table, ``SHOWN_PER_KIND`` of each kind, and how many there are of each."""
    counts = Counter(finding.kind for finding in findings)
    shown: Counter = Counter()
    rows = [("kind", "file", "row", "id", "what")]
    for finding in findings:
        shown[finding.kind] += 1
        if shown[finding.kind] <= SHOWN_PER_KIND:
            rows.append((finding.kind, finding.file, str(finding.row), finding.id, finding.message))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]) for row in rows]
    for kind, count in counts.items():
        hidden = f", {count - SHOWN_PER_KIND} not shown" if count > SHOWN_PER_KIND else ""
        lines.append(f"{count} x {kind}{hidden}")
    return "\n".join(lines)


def _all(files: Mapping[str, Rows]) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    for file, rows in files.items():
        for number, row in enumerate(rows):
            yield file, number, row


def _id(row: Any) -> str:
    """The row's id, or "" if it has none that can be shown."""
    extra = row.get("extra_info") if isinstance(row, Mapping) else None
    identity = extra.get("id") if isinstance(extra, Mapping) else None
    return str(identity)[:60] if isinstance(identity, str | int) else ""


def _row_problems(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    media = {"image": row["images"]} if row.get("images") and not row["videos"] else {"video": row["videos"]}
    for kind, shown in media.items():
        placeholders = sum(message["content"].count(f"<{kind}>") for message in row["prompt"])
        if placeholders != len(shown) or placeholders != 1:
            yield (
                f"{kind}s",
                f"{len(shown)} {kind}s and {placeholders} times <{kind}> in the prompt, need one of each",
            )
    if not row["videos"] and not row.get("images"):
        return
    if row["videos"] and row.get("images"):
        yield "videos", "a video and an image, need one of them"
    try:
        item = from_row(row)
    except ValueError as error:
        yield "answer or options", str(error)
        return
    contradiction = contradictory_options(item.options, item.answers)
    if contradiction:
        yield "contradictory options", contradiction
    try:
        check_gold(row["data_source"], row["reward_model"]["ground_truth"], row["extra_info"])
    except ValueError as error:
        yield "gold answer", str(error)


def _look_at_videos(
    rows: Located,
    digests: Mapping[str, str],
    unreadable: Mapping[str, str],
    cache: FrameCache | None,
    patch_size: int,
    workers: int,
) -> dict[str, tuple[str, str] | None]:
    """What is wrong with each different video of the rows, by ``video_key``."""
    videos = {video_key(video): video for _, _, row in rows for video in row["videos"]}
    failures = last_failures(cache.folder) if cache is not None else {}

    def look(video: Mapping[str, Any]) -> tuple[str, str] | None:
        path = video["video"]
        if path in unreadable:
            missing = unreadable[path] == "no such video"
            return ("video missing", path) if missing else ("video broken", f"{path}: {unreadable[path]}")
        if video["digest"] and video["digest"] != digests[path]:
            return "video changed", f"{path}: SHA-256 {digests[path][:12]}.., was {video['digest'][:12]}.."
        return _video_problem(video, cache, patch_size, failures)

    with ThreadPoolExecutor(workers) as pool:
        found = progress(pool.map(look, videos.values()), len(videos), "videos", "video")
        return dict(zip(videos, found, strict=True))


def _video_problem(
    video: Mapping[str, Any], cache: FrameCache | None, patch_size: int, failures: Mapping[str, str]
) -> tuple[str, str] | None:
    path = video["video"]
    if cache is not None and video in cache:
        damage = cache.damage(video)
        return ("cache damaged", f"{path}: {damage}") if damage else None
    if cache is not None and path in failures:
        return "video broken", f"{path}: {failures[path]}"
    if cache is not None:
        return "not in the cache", f"{path}: run `verl-twgrpo data frames`"
    try:
        prepare_video(video, patch_size)
    except ValueError as error:
        return "video broken", str(error)
    return None


def _repeated_ids(rows: Located) -> Iterator[Finding]:
    seen: dict[tuple[str, str], str] = {}
    for file, number, row in rows:
        first = seen.setdefault((row["data_source"], row["extra_info"]["id"]), f"{file}: row {number}")
        if first != f"{file}: row {number}":
            yield Finding("repeated id", file, number, _id(row), f"first in {first}")


def _shared_videos(training: Located, validation: Located) -> Iterator[Finding]:
    held_out: dict[str, tuple[str, str]] = {}
    for file, number, row in validation:
        for _, path, digest in _media(row):
            for name in (path, digest):
                held_out.setdefault(name, (path, f"{file}: row {number}"))
    held_out.pop("", None)
    for file, number, row in training:
        for kind, path, digest in _media(row):
            found = held_out.get(digest) or held_out.get(path)
            if found:
                name, where = found
                same = "is in" if name == path else f"has the same content as {name}, which is in"
                yield Finding(f"{kind} in validation", file, number, _id(row), f"{path} {same} {where}")


def _media(row: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Kind, path and digest of what a row shows."""
    for kind in ("video", "image"):
        for one in row.get(f"{kind}s") or ():
            yield kind, one[kind], one["digest"]
