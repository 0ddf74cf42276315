"""What a source is: a row that each file of this package, or of another one, ends in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from verl_twgrpo.data.schema import Item
from verl_twgrpo.data.sources.fields import Skipped


@dataclass(frozen=True)
class Source:
    """``convert(row, split)`` gives the items of one raw row, or ``Skipped`` with a reason; it raises ``ValueError``
    naming the field for a row that is not in the schema.

    ``split``: the usual one. ``prompt``: a name in ``prompts.PROMPTS``. ``unique_video_names``: a video is known by its
    file name alone, in whatever folder it lies. ``videos_beside``: without ``--videos`` they are looked for in the
    folder of the annotation file.
    """

    name: str
    convert: Callable[[Mapping[str, Any], str], Iterator[Item | Skipped]]
    split: str
    prompt: str
    unique_video_names: bool = False
    videos_beside: bool = False
