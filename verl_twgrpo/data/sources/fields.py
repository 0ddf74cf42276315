"""What the sources share: checked access to a raw row's fields, and the released multiple-choice form."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from verl_twgrpo.data.schema import LETTERS, Item

_LETTERED = re.compile(r"\s*(?:\(([A-Z])\)|([A-Z])[.):])(?:\s+|$)")


@dataclass(frozen=True)
class Skipped:
    """A question that is not converted, and why. Without an ``id`` it is counted only, not listed."""

    reason: str
    id: str = ""


def text(row: Mapping[str, Any], field: str) -> str:
    """The row's text (a whole number becomes text), stripped; raises ``ValueError`` if there is none."""
    if not isinstance(row, Mapping):
        raise ValueError(f"{field}: need an object that has it, got {row!r:.60}")
    value = row.get(field)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{field}: need a text, got {value!r:.60}")
    value = str(value).strip()
    if not value:
        raise ValueError(f"{field} is empty")
    check_whole_characters(value, field)
    return value


def check_whole_characters(value: str, field: str) -> None:
    """Raises ``ValueError`` for half a character (JSON's "\\ud83d" alone), which no UTF-8 file can hold."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        raise ValueError(f"{field}: {half} is half a character (a lone surrogate); write the whole one") from None


def options(row: Mapping[str, Any], field: str = "options") -> tuple[str, ...]:
    """The row's options without their letters ("(A) ...", "A. ...", "A) ..."); letters out of order are refused."""
    raw = row.get(field)
    if isinstance(raw, str) or not isinstance(raw, Sequence) or not raw:
        raise ValueError(f"{field}: need a list of options, got {raw!r:.60}")
    for option in raw:
        if not isinstance(option, str):
            raise ValueError(f"{field}: need texts, got {option!r:.60}")
        check_whole_characters(option, field)
    if len(raw) > len(LETTERS):
        raise ValueError(f"{field}: {len(raw)} options, at most {len(LETTERS)} have letters")
    marks = [mark for option in raw if (mark := _LETTERED.match(option))]
    if len(marks) < len(raw):
        return tuple(option.strip() for option in raw)
    letters = "".join(mark.group(1) or mark.group(2) for mark in marks)
    if letters != LETTERS[: len(raw)]:
        raise ValueError(f"{field}: the options are lettered {','.join(letters)}, need {','.join(LETTERS[: len(raw)])}")
    return tuple(option[mark.end() :].strip() for option, mark in zip(raw, marks, strict=True))


def letters(answer: str, field: str) -> frozenset[str]:
    """The letters of "C", "(C)", "(A),(C)", "A,C" or "<answer>A,C</answer>"; anything else is refused."""
    content = answer.strip().removeprefix("<answer>").removesuffix("</answer>").strip()
    parts = [part.strip().removeprefix("(").removesuffix(")") for part in content.split(",")]
    if any(len(part) != 1 or part not in LETTERS for part in parts):
        raise ValueError(f"{field}: need option letters, got {answer!r:.60}")
    return frozenset(parts)


def letter_of_text(answer: str, choices: Sequence[str], field: str) -> frozenset[str]:
    """The letter of the one option that reads like the answer."""
    found = [k for k, choice in enumerate(choices) if choice == answer.strip()]
    if len(found) != 1:
        raise ValueError(f"{field}: {answer!r} is {len(found)} of the options, need one of {list(choices)}")
    return frozenset(LETTERS[found[0]])


def digest_id(video: str, question: str) -> str:
    """An id for a row that has none: the video's name and a digest of the question, the same in any order of rows."""
    return f"{PurePosixPath(video).stem}-{hashlib.sha256(question.encode()).hexdigest()[:12]}"


def released(row: Mapping[str, Any], source: str, split: str, *, question_type: str = "") -> Item | Skipped:
    """An item from the form that Video-R1 and the released code share.

    Fields: problem, options ["A. ..", ..], solution "<answer>A</answer>", video (Video-R1: path), problem_id, and
    problem_type, of which only "multiple choice" can be converted. The released logs hold such a row under "question".
    """
    if isinstance(row.get("question"), Mapping):
        row = row["question"]
    question, video = text(row, "problem"), text(row, "video" if "video" in row else "path")
    identity = text(row, "problem_id") if "problem_id" in row else digest_id(video, question)
    kind = row.get("problem_type", "multiple choice")
    if kind != "multiple choice":
        return Skipped(f"problem_type {kind!r} has no options", identity)
    return Item(
        id=identity,
        source=source,
        split=split,
        question=question,
        options=options(row),
        answers=letters(text(row, "solution"), "solution"),
        video=video,
        question_type=question_type or str(row.get("original_question_type") or ""),
    )
