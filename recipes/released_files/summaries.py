"""Released summaries (``*_temp_metrics.json``): accuracies without their rows, and how they pool into Table 1's.

python recipes/released_files/summaries.py tests/released/stored_metrics.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_twgrpo.evaluation import wilson
from verl_twgrpo.evaluation.tables import markdown, percent


@dataclass(frozen=True)
class StoredSummary:
    """Strict and soft accuracy of n questions as fractions, as a summary stores them; Wilson interval of the strict.

    questions: one of ``metrics.QUESTIONS``.
    """

    name: str
    questions: str
    n: int
    strict: float
    strict_low: float
    strict_high: float
    soft: float


def read_summaries(path: str | Path) -> list[StoredSummary]:
    """The accuracies in a summary, or in a file that holds several by name.

    Where single- and multiple-answer questions are told apart, "all" pools them by their counts: the ``overall`` of
    those files covers only the last batch of the evaluation.
    Raises ``ValueError`` naming the summary and the field that is missing or no number.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x})") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno}: not JSON ({error.msg})") from None
    except RecursionError:
        raise ValueError(f"{path}: not JSON (nested too deep)") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: need an object of accuracies, got {type(content).__name__}")
    several = content and all(isinstance(value, dict) for value in content.values()) and "overall" not in content
    summaries = content if several else {Path(path).name: content}
    return [summary for name, stored in summaries.items() for summary in _read(name, stored, f"{path}: {name}")]


def _read(name: str, stored: Mapping[str, Any], where: str) -> list[StoredSummary]:
    if "single_choice" not in stored:
        return [_summary(name, "all", _number(stored, "total_samples", where), *_accuracies(stored, where))]
    parts = {"single": "single_choice", "multiple": "multiple_choice"}
    found = []
    for kind, key in parts.items():
        if not isinstance(stored.get(key), dict):
            raise ValueError(f"{where}: {key} is missing")
        part_where = f"{where}: {key}"
        found.append(
            _summary(name, kind, _number(stored[key], "count", part_where), *_accuracies(stored[key], part_where))
        )
    n = sum(part.n for part in found)
    strict, soft = (sum(part.n * getattr(part, key) for part in found) / n for key in ("strict", "soft"))
    return [*found, _summary(name, "all", n, strict, soft)]


def _summary(name: str, kind: str, n: float, strict: float, soft: float) -> StoredSummary:
    return StoredSummary(name, kind, int(n), strict, *wilson(round(strict * n), int(n)), soft)


def _accuracies(stored: Mapping[str, Any], where: str) -> tuple[float, float]:
    return _number(stored, "strict_accuracy", where) / 100, _number(stored, "partial_accuracy", where) / 100


def _number(stored: Mapping[str, Any], key: str, where: str) -> float:
    value = stored.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where}: {key} is {value!r}, need a number")
    return value


def table(summaries: Sequence[StoredSummary]) -> str:
    """As Markdown, percentages with their intervals."""
    rows = [
        [part.name, part.questions, part.n, percent(part.strict, part.strict_low, part.strict_high), percent(part.soft)]
        for part in summaries
    ]
    return markdown(["summary", "questions", "n", "strict %", "soft %"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("summaries", nargs="+", metavar="SUMMARY", help="released .json files")
    found = [summary for path in parser.parse_args().summaries for summary in read_summaries(path)]
    print(table(found), end="")


if __name__ == "__main__":
    main()
