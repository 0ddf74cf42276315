"""One question about one video, in the form that every source is converted to and every later step reads."""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from typing import Any

LETTERS = string.ascii_uppercase


@dataclass(frozen=True)
class Item:
    """A multi-answer question: which of the lettered options hold for the video.

    Options are bare texts; option k is called by the letter ``LETTERS[k]``. ``answers`` is the set of true letters.
    ``video_digest`` is the SHA-256 of the video file when the item was converted, or "" where nobody looked.
    ``provenance`` says where the item came from and what was done to it (JSON values only).

    Raises ``ValueError`` naming source, id and field if a field is empty or out of range.
    """

    id: str
    source: str
    split: str
    question: str
    options: tuple[str, ...]
    answers: frozenset[str]
    video: str
    question_type: str = ""
    negated: bool = False
    video_digest: str = ""
    provenance: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        where = f"{self.source}: item {self.id}"
        for name in ("id", "source", "split", "question", "video"):
            if not getattr(self, name).strip():
                raise ValueError(f"{where}: {name} is empty")
        if not 1 <= len(self.options) <= len(LETTERS):
            raise ValueError(f"{where}: {len(self.options)} options, need 1 to {len(LETTERS)}")
        for letter, option in zip(LETTERS, self.options, strict=False):
            if not option.strip():
                raise ValueError(f"{where}: option {letter} is empty")
        if not self.answers:
            raise ValueError(f"{where}: no true option (an empty truth makes the soft reward 0/0)")
        stray = sorted(self.answers - set(self.letters))
        if stray:
            raise ValueError(f"{where}: answer {','.join(stray)} is not among the options {','.join(self.letters)}")

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters of the options, in order."""
        return tuple(LETTERS[: len(self.options)])

    @property
    def ground_truth(self) -> str:
        """The true letters as the reward reads them, e.g. ``"A,C"``."""
        return ",".join(sorted(self.answers))
