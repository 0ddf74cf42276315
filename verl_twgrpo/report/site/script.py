"""Data as JavaScript files: a page that was opened from disk may load scripts, and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from verl_twgrpo.files import atomic_write

# "<" ends a script where "</script>" or "<!--" follows; the two separators are line ends in older JavaScript only
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def write_call(path: Path, function: str, *arguments: Any) -> int:
    """A file that calls ``function`` of the page with JSON arguments; returns its size in bytes."""
    written = ",".join(
        json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False) for value in arguments
    )
    for character, escape in _ESCAPED.items():
        written = written.replace(character, escape)
    # a lone surrogate, which a tokenizer's half character can become, is no UTF-8
    text = f"Report.{function}({written});\n".encode("utf-8", "replace")
    with atomic_write(path) as part:
        part.write_bytes(text)
    return len(text)


def rounded(values: Iterable[float | None], digits: int = 3, decimals: int = 300) -> list[float | None]:
    """Numbers with as many digits as one can see, at most ``decimals`` after the point; None for what is no number."""
    array = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        places = digits - 1 - np.floor(np.log10(np.abs(array)))
        scale = 10.0 ** np.clip(places, -300, decimals)
        near = np.where(array == 0, 0.0, np.round(array * scale) / scale)
    # "1", not "1.0": most weights of most tokens
    return [None if not math.isfinite(x) else int(x) if x.is_integer() and abs(x) < 1e15 else x for x in near.tolist()]
