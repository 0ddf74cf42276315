"""The one row that is looked at: given videos, a row of a parquet file, or a small video made for the purpose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq

from verl_twgrpo.data.parquet import FrameLimits

QUESTION = "What happens in the video?"
# the length of CLEVRER's videos: 128 frames at 25 per second
FRAMES, RATE, SIZE = 128, 25, 56


def row_of_videos(videos: Sequence[str | Path]) -> dict[str, Any]:
    """A row that asks about ``videos``, in the columns that verl's dataset reads; frames as the recipes sample them.

    Raises:
        FileNotFoundError: for a video that is not there.
    """
    limits = FrameLimits()
    for video in videos:
        if not Path(video).is_file():
            raise FileNotFoundError(f"--video {video}: no such file")
    sampling = {"nframes": limits.nframes, "min_pixels": limits.min_pixels, "max_pixels": limits.max_pixels}
    return {
        "data_source": "parity",
        "prompt": [{"role": "user", "content": "<video>" * len(videos) + QUESTION}],
        "videos": [{"video": str(Path(video).resolve()), **sampling} for video in videos],
        "reward_model": {"style": "rule", "ground_truth": ""},
        "extra_info": {"index": 0},
    }


def row_of_parquet(path: Path, number: int) -> dict[str, Any]:
    """Row ``number`` of a parquet file, with all its columns.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has no such row, or no prompts.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--data {path}: no such file")
    file = pq.ParquetFile(path)
    rows = file.metadata.num_rows
    if not 0 <= number < rows:
        raise ValueError(f"--row {number}: {path} has rows 0 to {rows - 1}")
    if "prompt" not in file.schema_arrow.names:
        raise ValueError(f"--data {path}: column 'prompt' is missing (it has {', '.join(file.schema_arrow.names)})")
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        if number < size:
            (row,) = file.read_row_group(group).slice(number, 1).to_pylist()
            return row
        number -= size
    raise AssertionError("the row groups have as many rows as the file")


def write_video(path: Path) -> Path:
    """A square that wanders over a grey ground for 5.12 seconds, as mp4 of 56 x 56 pixels."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=RATE, options={"qp": "10", "preset": "ultrafast"})
        stream.height = stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(FRAMES):
            image: np.ndarray = np.full((SIZE, SIZE, 3), 96, dtype=np.uint8)
            left = number * (SIZE - 16) // (FRAMES - 1)
            image[20:36, left : left + 16] = (220, 40, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path
