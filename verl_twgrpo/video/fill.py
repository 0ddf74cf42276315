"""Decode the videos of parquet files into a frame cache: in parallel, resumable, here or over a Ray cluster."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_twgrpo.files import write_json
from verl_twgrpo.progress import Progress
from verl_twgrpo.video.cache import FrameCache
from verl_twgrpo.video.decode import VideoError, prepare_video, probe
from verl_twgrpo.video.digest import known_digest

LAST_RUN = "last_run.json"


@dataclass(frozen=True)
class Decoded:
    """What became of one video. ``state`` is "decoded", "cached" (was there already) or "failed", with ``reason``."""

    video: str
    state: str
    reason: str = ""
    notes: tuple[str, ...] = ()


def videos_of(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The different videos of the rows of parquet files, each with its sampling, in order of appearance."""
    found = {tuple(sorted(video.items())): dict(video) for row in rows for video in row["videos"]}
    return list(found.values())


def prepare(video: Mapping[str, Any], cache: FrameCache, *, keep_corrupt: bool = False, again: bool = False) -> Decoded:
    """Decode one video into the cache unless it is there. A video that cannot be used is reported, not raised.

    Frames whose file in the cache is damaged are decoded again; with ``again`` all are. A damaged video is used with
    ``keep_corrupt``, and noted. Notes stay with the frames in the cache. Raises ``OSError`` if the cache cannot be
    written.
    """
    path = video["video"]
    try:
        if video["digest"] and video in cache and not again and not cache.damage(video):
            return _cached(video, cache, keep_corrupt)
        info = probe(path)
        digest = _digest(path)
        if video["digest"] not in ("", digest):
            raise VideoError(f"{path}: changed since it was converted (SHA-256 {digest[:12]}..)")
        video = {**video, "digest": digest}
        if video in cache and not again and not cache.damage(video):
            return _cached(video, cache, keep_corrupt)
        notes = list(info.notes)
        if info.frames < video["nframes"]:
            notes.append(f"short: {info.frames} frames, repeated to {video['nframes']}")
        on_damage = notes.append if keep_corrupt else None
        frames, metadata = prepare_video(video, cache.image_patch_size, info, on_damage)
        cache.put(video, frames, metadata, notes)
    except ValueError as error:
        return Decoded(path, "failed", reason=str(error).removeprefix(f"{path}: "))
    return Decoded(path, "decoded", notes=tuple(notes))


def _digest(path: str) -> str:
    try:
        return known_digest(path)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror})") from None


def _cached(video: Mapping[str, Any], cache: FrameCache, keep_corrupt: bool) -> Decoded:
    notes = tuple(cache.notes(video))
    damage = [note for note in notes if note.startswith("damaged")]
    if damage and not keep_corrupt:
        return Decoded(video["video"], "failed", f"{damage[0]}; its frames were kept with --keep-corrupt", notes)
    return Decoded(video["video"], "cached", notes=notes)


def prepare_all(
    videos: Sequence[Mapping[str, Any]],
    folder: str | Path,
    *,
    image_patch_size: int = 14,
    workers: int = 4,
    ray: bool,
    strict: bool = False,
    **how: bool,
) -> list[Decoded]:
    """One result per video, in the given order; ``workers`` threads here, or with ``ray`` as many tasks as it has CPUs.

    The folder has to be one that every machine of the Ray cluster sees. What a run that was stopped has finished is
    not done again. ``how``: keep_corrupt and again, as ``prepare`` takes them. With ``strict`` the first video that
    cannot be used raises ``VideoError``.
    """
    cache = FrameCache(folder, image_patch_size, keep=0)
    cache.folder.mkdir(parents=True, exist_ok=True)
    if ray:
        finished = _over_ray(videos, cache.folder, image_patch_size, how)
    else:
        finished = _over_threads(videos, cache, workers, how)
    results: dict[int, Decoded] = {}
    failed = 0
    with Progress(len(videos), "frames", "video") as shown:
        try:
            for index, result in finished:
                results[index] = result
                if strict and result.state == "failed":
                    raise VideoError(f"{result.video}: {result.reason}")
                failed += result.state == "failed"
                shown.advance(failed=failed)
        except KeyboardInterrupt:
            done = sum(result.state != "failed" for result in results.values())
            kept = f"{done} of {len(videos)} videos are in {cache.folder}; the same command goes on from there"
            raise KeyboardInterrupt(kept) from None
    return [results[index] for index in range(len(videos))]


def _over_threads(
    videos: Sequence[Mapping[str, Any]], cache: FrameCache, workers: int, how: Mapping[str, bool]
) -> Iterator[tuple[int, Decoded]]:
    # FFmpeg and torch let go of the interpreter's lock while they decode and resize
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(prepare, video, cache, **how): index for index, video in enumerate(videos)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _over_ray(
    videos: Sequence[Mapping[str, Any]], folder: Path, image_patch_size: int, how: Mapping[str, bool]
) -> Iterator[tuple[int, Decoded]]:
    import ray

    started_here = not ray.is_initialized()
    if started_here:
        ray.init(log_to_driver=False)
    try:
        task = ray.remote(num_cpus=1)(_prepare_in_task)
        where = str(folder.resolve())
        pending = {task.remote(dict(video), where, image_patch_size, how): k for k, video in enumerate(videos)}
        while pending:
            done, _ = ray.wait(list(pending), num_returns=1)
            yield pending.pop(done[0]), ray.get(done[0])
    finally:
        if started_here:
            ray.shutdown()


def _prepare_in_task(video: dict[str, Any], folder: str, image_patch_size: int, how: Mapping[str, bool]) -> Decoded:
    return prepare(video, FrameCache(folder, image_patch_size, keep=0), **how)


def report(results: Sequence[Decoded]) -> dict[str, Any]:
    """What a run did: counts by state, the videos that failed with their reasons, and those with notes."""
    states = [result.state for result in results]
    return {
        "videos": len(results),
        **{state: states.count(state) for state in ("decoded", "cached", "failed")},
        "failures": [dataclasses.asdict(result) for result in results if result.state == "failed"],
        "noted": [dataclasses.asdict(result) for result in results if result.notes],
    }


def write_last_run(results: Sequence[Decoded], folder: str | Path) -> dict[str, Any]:
    """``report`` as ``last_run.json`` in the cache's folder, with the failures of videos that only earlier runs saw."""
    summary = report(results)
    here = {result.video for result in results}
    earlier = [{"video": video, "reason": why} for video, why in last_failures(folder).items() if video not in here]
    write_json(Path(folder) / LAST_RUN, {**summary, "failed_earlier": earlier})
    return summary


def last_failures(folder: str | Path) -> dict[str, str]:
    """Why each video that could not be decoded into the cache could not."""
    try:
        record = json.loads((Path(folder) / LAST_RUN).read_text(encoding="utf-8"))
        entries = record["failures"] + record.get("failed_earlier", [])
        return {entry["video"]: entry["reason"] for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):  # not there, or an earlier version's
        return {}
