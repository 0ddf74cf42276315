"""One question about one video or picture, in the form that every source is converted to and every later step reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from verl_twgrpo.rewards.answers import LETTERS

MULTIPLE_CHOICE = "multiple_choice"


@dataclass(frozen=True)
class Item:
    """A question about a video, or about an image; by default a multi-answer one: which of its lettered options hold.

    Options are bare texts; option k is called by the letter ``LETTERS[k]``. ``answers`` is the set of true letters.
    ``task`` names the reward task; for any but multiple choice ``truth`` is its truth as text (docs/tasks.md) in place
    of ``answers``, and options may be missing.
    ``decisive`` are the words or phrases of a response that decide, where they are known (weighting ``oracle``).
    ``video_digest`` is the SHA-256 of that file when the item was converted, or "" where nobody looked.
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
    task: str = MULTIPLE_CHOICE
    truth: str = ""
    decisive: tuple[str, ...] = ()
    image: str = ""
    provenance: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        where = f"{self.source}: item {self.id}"
        for name in ("id", "source", "split", "question", "media"):
            if not getattr(self, name).strip():
                raise ValueError(f"{where}: {'video' if name == 'media' else name} is empty")
        if self.video and self.image:
            raise ValueError(f"{where}: a video and an image; need one of them")
        multiple_choice = self.task == MULTIPLE_CHOICE
        if not multiple_choice <= len(self.options) <= len(LETTERS):
            raise ValueError(f"{where}: {len(self.options)} options, need 1 to {len(LETTERS)}")
        for letter, option in zip(LETTERS, self.options, strict=False):
            if not option.strip():
                raise ValueError(f"{where}: option {letter} is empty")
        if not multiple_choice:
            self._check_truth(where)
            return
        if self.truth:
            raise ValueError(f"{where}: truth belongs to other tasks than multiple choice, whose truth is answers")
        if not self.answers:
            raise ValueError(f"{where}: no true option (an empty truth makes the soft reward 0/0)")
        stray = sorted(self.answers - set(self.letters))
        if stray:
            raise ValueError(f"{where}: answer {','.join(stray)} is not among the options {','.join(self.letters)}")

    def _check_truth(self, where: str) -> None:
        """What a truth says is read by its task, on conversion and again before training."""
        if not self.task.strip():
            raise ValueError(f"{where}: task is empty")
        if not self.truth.strip():
            raise ValueError(f"{where}: task {self.task} needs a truth")
        if self.answers:
            raise ValueError(f"{where}: task {self.task} has its letters in truth, not in answers")

    @property
    def media(self) -> str:
        """The path of the video or image."""
        return self.video or self.image

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters of the options, in order."""
        return tuple(LETTERS[: len(self.options)])

    @property
    def ground_truth(self) -> str:
        """The truth as the reward reads it, e.g. ``"A,C"``."""
        if self.task != MULTIPLE_CHOICE:
            return self.truth
        return ",".join(sorted(self.answers))
