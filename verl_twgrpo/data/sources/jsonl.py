"""A user's own questions: the generic schema, a JSON object per line (docs/your_data.md).

Fields: ``question``, ``options`` (1 to 26 texts), ``answer`` ("A" or "A,C" or ["A", "C"]) and ``video`` (a path
below --videos); optional ``id``, ``question_type``, ``task``, ``decisive`` (a list of texts, for the weighting
``oracle``) and ``metadata`` (an object, kept with the item). Rows whose ``task`` is another than multiple choice have
``truth`` in place of ``answer``, in the form of docs/tasks.md, and need no options. A field that is not among these is
refused: it would be a slip of the pen that nobody sees.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from verl_twgrpo.data.schema import MULTIPLE_CHOICE, Item
from verl_twgrpo.data.sources.fields import Skipped, digest_id, letters, options, text
from verl_twgrpo.data.sources.source import Source
from verl_twgrpo.rewards import TASKS

FIELDS = ("id", "question", "options", "answer", "truth", "video", "question_type", "task", "decisive", "metadata")


def convert(row: Mapping[str, Any], split: str) -> Iterator[Item | Skipped]:
    """The item of one row; raises ``ValueError`` naming the field."""
    unknown = [field for field in row if field not in FIELDS]
    if unknown:
        raise ValueError(f"{unknown[0]!s:.60}: no such field; there are {', '.join(FIELDS)}")
    task = text(row, "task") if "task" in row else MULTIPLE_CHOICE
    if task not in TASKS:
        raise ValueError(f"task: {task!r:.60}, need one of {', '.join(sorted(TASKS))}")
    metadata = row.get("metadata", {})
    if not isinstance(metadata, Mapping):
        raise ValueError(f"metadata: need an object, got {metadata!r:.60}")
    video, question = text(row, "video"), text(row, "question")
    choices = options(row) if task == MULTIPLE_CHOICE or "options" in row else ()
    answers, truth = _truth(row, task, choices)
    yield Item(
        id=text(row, "id") if "id" in row else digest_id(video, "\n".join((question, *choices))),
        source="jsonl",
        split=split,
        question=question,
        options=choices,
        answers=answers,
        video=video,
        question_type=text(row, "question_type") if "question_type" in row else "",
        task=task,
        truth=truth,
        decisive=_decisive(row.get("decisive", [])),
        provenance={"metadata": dict(metadata)} if metadata else {},
    )


def _truth(row: Mapping[str, Any], task: str, choices: tuple[str, ...]) -> tuple[frozenset[str], str]:
    """The true letters of a multiple-choice question, or the truth of another task as text."""
    used, other = ("answer", "truth") if task == MULTIPLE_CHOICE else ("truth", "answer")
    if other in row:
        raise ValueError(f"{other}: the task {task} has its truth in {used!r}")
    if task == MULTIPLE_CHOICE:
        return _answers(row.get("answer")), ""
    raw = row.get("truth")
    truth = raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False)
    TASKS[task].read_truth(truth, {"options": list(choices)} if choices else {}, "truth")
    return frozenset(), truth


def _decisive(words: Any) -> tuple[str, ...]:
    if not isinstance(words, list) or not all(isinstance(word, str) and word.strip() for word in words):
        raise ValueError(f"decisive: need a list of words or phrases, got {words!r:.60}")
    return tuple(words)


def _answers(answer: Any) -> frozenset[str]:
    parts = answer if isinstance(answer, list) else [answer]
    if not parts or not all(isinstance(part, str) and part.strip() for part in parts):
        raise ValueError(f"answer: need letters such as 'A', 'A,C' or ['A', 'C'], got {answer!r:.60}")
    return frozenset().union(*(letters(part, "answer") for part in parts))


SOURCE = Source("jsonl", convert, split="train", prompt="clevrer", videos_beside=True)
