"""ActivityNet Captions: when does the described event happen? Task temporal_grounding.

Official ({train,val_1,val_2}.json): {"v_QOlSCBRmfWY": {duration, timestamps [[start, end], ..], sentences [..]}}, times
in seconds, a sentence for each pair.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from verl_twgrpo.data.schema import Item
from verl_twgrpo.data.sources.fields import Skipped, digest_id, text
from verl_twgrpo.data.sources.source import Source


def convert(row: Mapping[str, Any], split: str) -> Iterator[Item | Skipped]:
    """The items of one video; raises ``ValueError`` naming the field."""
    yield from moments(row, "activitynet_captions", split)


def moments(row: Mapping[str, Any], source: str, split: str) -> Iterator[Item | Skipped]:
    """An item for every sentence of a video. A pair of times that is no interval of the video is skipped."""
    video, entry = text(row, "key"), row.get("value")
    if not isinstance(entry, Mapping):
        raise ValueError(f"{video}: need {{duration, timestamps, sentences}}, got {entry!r}")
    times, sentences = entry.get("timestamps"), entry.get("sentences")
    if not isinstance(times, list) or not isinstance(sentences, list) or len(times) != len(sentences):
        raise ValueError(f"{video}: timestamps and sentences need to be lists of one length")
    for pair, sentence in zip(times, sentences, strict=True):
        sentence = text({"sentences": sentence}, "sentences")
        yield moment(source, split, video, sentence, pair, entry.get("duration"))


def moment(source: str, split: str, video: str, sentence: str, pair: Any, duration: Any) -> Item | Skipped:
    """One event of one video."""
    file = video if "." in video else f"{video}.mp4"
    identity = digest_id(file, f"{sentence} {pair}")
    try:
        start, end = (float(bound) for bound in pair)
        length = None if duration is None else float(duration)
    except (TypeError, ValueError):
        raise ValueError(
            f"timestamps: need [start, end] in seconds and a duration, got {pair!r}, {duration!r}"
        ) from None
    if not 0 <= start < end or (length is not None and (start >= length or end >= length + 1)):
        return Skipped("times that are no interval of the video", identity)
    return Item(
        id=identity,
        source=source,
        split=split,
        question=f'When does the following happen in the video? "{sentence}"',
        options=(),
        answers=frozenset(),
        video=file,
        task="temporal_grounding",
        truth=json.dumps({"intervals": [[start, end]], "duration": length}),
    )


SOURCE = Source("activitynet_captions", convert, split="train", prompt="temporal_grounding", unique_video_names=True)
