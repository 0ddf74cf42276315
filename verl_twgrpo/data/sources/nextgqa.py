"""NExT-GQA and NExT-QA, five options, one of them true.

VideoChat-R1's annotations, which the released code uses (nextgqa_val.json): {id, video, question, options ["(A) ..",
..], answer "(C)", type, duration, glue [[start, end], ..] in seconds}. Official (the hub's lmms-lab/NExTQA, or val.csv
as rows): {video or video_id, qid, type, question, a0 .. a4, answer as text or as a number}. Released evaluation rows:
{problem, options, solution, ..}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from verl_twgrpo.data.schema import LETTERS, Item
from verl_twgrpo.data.sources.fields import Skipped, letter_of_text, letters, options, released, text
from verl_twgrpo.data.sources.source import Source


def convert(row: Mapping[str, Any], split: str) -> Iterator[Item | Skipped]:
    """The item of one row; raises ``ValueError`` naming the field."""
    if isinstance(row.get("question"), Mapping):
        row = row["question"]
    if "a0" in row:
        yield _official(row, split)
    elif "problem" in row and "answer" not in row:
        item = released(row, "nextgqa", split, question_type=str(row.get("type") or ""))
        # problem_id numbers the released file, id is NExT-GQA's own
        yield replace(item, id=text(row, "id")) if "id" in row and isinstance(item, Item) else item
    else:
        grounding = {key: row[key] for key in ("glue", "duration") if key in row}
        yield Item(
            id=text(row, "id"),
            source="nextgqa",
            split=split,
            question=text(row, "question"),
            options=options(row),
            answers=letters(text(row, "answer"), "answer"),
            video=text(row, "video"),
            question_type=str(row.get("type") or ""),
            provenance=grounding,
        )


def _official(row: Mapping[str, Any], split: str) -> Item:
    video = text(row, "video" if "video" in row else "video_id")
    choices = tuple(text(row, f"a{k}") for k in range(5))
    answer = text(row, "answer")
    if answer in {"0", "1", "2", "3", "4"}:
        answers = frozenset(LETTERS[int(answer)])
    else:
        answers = letter_of_text(answer, choices, "answer")
    return Item(
        id=f"{video}_{text(row, 'qid')}",
        source="nextgqa",
        split=split,
        question=text(row, "question"),
        options=choices,
        answers=answers,
        video=f"{video}.mp4",
        question_type=str(row.get("type") or ""),
    )


SOURCE = Source("nextgqa", convert, split="validation", prompt="video_r1", unique_video_names=True)
