"""Charades-STA: when does the described event happen? Task temporal_grounding.

Official (charades_sta_{train,test}.txt): lines "3MSZA 24.3 30.4##person turn a light on." without a duration. As
JSON, the form that trainers of the field pass on: {"3MSZA": {duration, timestamps [[start, end], ..], sentences [..]}}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from verl_twgrpo.data.schema import Item
from verl_twgrpo.data.sources.activitynet_captions import moment, moments
from verl_twgrpo.data.sources.fields import Skipped, text
from verl_twgrpo.data.sources.source import Source


def convert(row: Mapping[str, Any], split: str) -> Iterator[Item | Skipped]:
    """The items of one row; raises ``ValueError`` naming the field."""
    if "line" not in row:
        yield from moments(row, "charades_sta", split)
        return
    head, marked, sentence = text(row, "line").partition("##")
    parts = head.split()
    if not marked or len(parts) != 3 or not sentence.strip():
        raise ValueError(f"line: need 'VIDEO START END##SENTENCE', got {row['line']!r}")
    yield moment("charades_sta", split, parts[0], sentence.strip(), parts[1:], None)


SOURCE = Source("charades_sta", convert, split="train", prompt="temporal_grounding", unique_video_names=True)
