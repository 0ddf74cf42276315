"""Data and start model of the study: mini-CLEVRER questions, the same with blank frames, and a model that sees."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from verl_twgrpo.data.parquet import read_rows
from verl_twgrpo.files import atomic_write
from verl_twgrpo.mini_clevrer.demo.command import SPLITS, make_data, make_model, once
from verl_twgrpo.mini_clevrer.model.warm_start import WarmStart
from verl_twgrpo.mini_clevrer.study.arms import BLANK_FILE, BLANK_SOURCE
from verl_twgrpo.mini_clevrer.world import generate
from verl_twgrpo.mini_clevrer.world.render import FRAMES, SIZE, write_mp4
from verl_twgrpo.video.digest import video_digest
from verl_twgrpo.video.fill import prepare_all, videos_of


def prepare(root: Path, questions: dict[str, int], plan: WarmStart) -> None:
    """Make ``root/data``, its decoded ``root/frames`` and ``root/model`` unless they are there.

    Raises ``ValueError`` if one was made with other settings.

    Args:
        questions: how many of each split, and "seed".
    """
    once(root, "data", questions, lambda folder: _make_data(folder, questions))
    once(root, "frames", questions, lambda folder: _make_frames(folder, sorted((root / "data").glob("*.parquet"))))
    once(root, "model", asdict(plan), lambda folder: make_model(folder, plan))


def _make_data(folder: Path, questions: dict[str, int]) -> None:
    make_data(folder, questions, generate)
    video = folder / "videos" / "blank.mp4"
    write_mp4(np.full((FRAMES, SIZE, SIZE, 3), 128, dtype=np.uint8), video)
    for split in SPLITS:
        write_blank(folder / f"{split}.parquet", folder / BLANK_FILE.format(split=split), video)


def _make_frames(folder: Path, files: list[Path]) -> None:
    """Decode every video of ``files``: a rollout has no time for that. Raises ``ValueError`` naming one that failed."""
    videos = videos_of(row for file in files for row in read_rows(file))
    failed = [result for result in prepare_all(videos, folder, ray=False) if result.state == "failed"]
    if failed:
        raise ValueError(f"{failed[0].video}: {failed[0].reason}")


def write_blank(source: Path, target: Path, video: Path) -> None:
    """The questions of ``source`` with ids as they are, all about ``video``, as data source ``BLANK_SOURCE``."""
    table = pq.read_table(source)
    rows = table.to_pylist()
    for row in rows:
        row["data_source"] = BLANK_SOURCE
        row["videos"] = [{**shown, "video": str(video), "digest": video_digest(video)} for shown in row["videos"]]
    with atomic_write(target) as part:
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), part)
