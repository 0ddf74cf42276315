"""A user's own multiple-choice questions: the generic schema, a JSON object per line (docs/your_data.md).

Fields: ``question``, ``options`` (1 to 26 texts), ``answer`` ("A" or "A,C" or ["A", "C"]) and ``video`` (a path
below --videos); optional ``id``, ``question_type``, ``task`` and ``metadata`` (an object, kept with the item). A field
that is not among these is refused: it would be a slip of the pen that nobody sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from verl_twgrpo.data.schema import Item
from verl_twgrpo.data.sources.fields import Skipped, digest_id, letters, options, text
from verl_twgrpo.data.sources.source import Source

FIELDS = ("id", "question", "options", "answer", "video", "question_type", "task", "metadata")
# the tasks whose rows are items with options
TASKS = ("multiple_choice",)


def convert(row: Mapping[str, Any], split: str) -> Iterator[Item | Skipped]:
    """The item of one row; raises ``ValueError`` naming the field."""
    unknown = [field for field in row if field not in FIELDS]
    if unknown:
        raise ValueError(f"{unknown[0]!s:.60}: no such field; there are {', '.join(FIELDS)}")
    task = text(row, "task") if "task" in row else TASKS[0]
    if task not in TASKS:
        raise ValueError(f"task: {task!r:.60}, need {' or '.join(TASKS)}")
    metadata = row.get("metadata", {})
    if not isinstance(metadata, Mapping):
        raise ValueError(f"metadata: need an object, got {metadata!r:.60}")
    video, question, choices = text(row, "video"), text(row, "question"), options(row)
    yield Item(
        id=text(row, "id") if "id" in row else digest_id(video, "\n".join((question, *choices))),
        source="jsonl",
        split=split,
        question=question,
        options=choices,
        answers=_answers(row.get("answer")),
        video=video,
        question_type=text(row, "question_type") if "question_type" in row else "",
        provenance={"metadata": dict(metadata)} if metadata else {},
    )


def _answers(answer: Any) -> frozenset[str]:
    parts = answer if isinstance(answer, list) else [answer]
    if not parts or not all(isinstance(part, str) and part.strip() for part in parts):
        raise ValueError(f"answer: need letters such as 'A', 'A,C' or ['A', 'C'], got {answer!r:.60}")
    return frozenset().union(*(letters(part, "answer") for part in parts))


SOURCE = Source("jsonl", convert, split="train", prompt="clevrer", videos_beside=True)
