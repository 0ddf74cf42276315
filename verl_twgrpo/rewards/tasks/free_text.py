"""Answers in free text: ``ocr`` (1 - word error rate) and ``open_ended`` (ROUGE). Truth: the text.

Words are compared in Unicode normal form NFKC and folded case. Distances come from RapidFuzz.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rapidfuzz.distance import LCSseq, Levenshtein

from ..registry import TaskSettings, require_choice, require_number, task

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class OpenEndedSettings(TaskSettings):
    """measure: ``rouge_l`` (F of the longest common subsequence) or ``rouge`` (mean F of ROUGE-1, 2 and L: Video-R1).

    threshold: score from which an answer counts as right.
    """

    measure: str = "rouge_l"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("measure", self.measure, ("rouge_l", "rouge"))
        require_number("threshold", self.threshold, 0.0, 1.0)


def words_between_spaces(text: str) -> list[str]:
    """Words with their punctuation, as the word error rate takes them."""
    return _folded(text).split()


def words(text: str) -> list[str]:
    """Runs of letters and digits, as ROUGE takes them, of any script (Google's rouge-score keeps a-z and 0-9 only)."""
    return _WORD.findall(_folded(text))


def word_error_rate(answer: Sequence[str], truth: Sequence[str]) -> float:
    """Substitutions, deletions and insertions over the number of true words, 1 at most. ``truth`` is not empty."""
    # so many insertions alone make it 1: a long answer costs no more time than a short one
    if len(answer) >= 2 * len(truth):
        return 1.0
    return min(1.0, Levenshtein.distance(answer, truth) / len(truth))


def f_measure(shared: int, answer: int, truth: int) -> float:
    """F1 of ``shared`` units out of ``answer`` and ``truth`` ones; 0 where nothing is shared."""
    return 2 * shared / (answer + truth) if shared else 0.0


def rouge_l(answer: Sequence[str], truth: Sequence[str]) -> float:
    """F1 of the longest common subsequence (Lin 2004, one reference, no stemming)."""
    return f_measure(LCSseq.similarity(answer, truth), len(answer), len(truth))


def rouge_n(answer: Sequence[str], truth: Sequence[str], n: int) -> float:
    """F1 of the common n-grams, each counted as often as both have it."""
    a, b = (Counter(zip(*(text[k:] for k in range(n)), strict=False)) for text in (answer, truth))
    return f_measure(sum((a & b).values()), sum(a.values()), sum(b.values()))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _read_truth(raw: Any, info: Mapping[str, Any], where: str) -> str:
    if not isinstance(raw, str) or not words(raw):
        raise ValueError(f"{where}: ground truth is {raw!r}, need a text with words in it")
    if "<answer>" in raw or "</answer>" in raw:
        raise ValueError(f"{where}: ground truth has answer tags in it; give the bare text")
    return raw


@task("ocr", read_truth=_read_truth)
def ocr(text: str, truth: str, settings: TaskSettings) -> dict:
    """1 less the word error rate; right is a text without an error."""
    content = settings.answer(text)
    answer = words_between_spaces(content or "")
    rate = word_error_rate(answer, words_between_spaces(truth)) if answer else 1.0
    return {"accuracy": float(rate == 0), "soft_accuracy": 1 - rate, "parsed": float(bool(answer)), "wer": rate}


def _lazy(truths: Sequence[str]) -> dict[str, list[str]]:
    """The words that most truths have, as many as half of the truths have at least."""
    split = [words(truth) for truth in truths]
    common = Counter(word for found in split for word in set(found))
    count = sorted(map(len, split))[len(split) // 2]
    text = " ".join(word for word, _ in common.most_common(count))
    return {f"the {count} most common words": [f"<answer>{text}</answer>"] * len(truths)}


@task("open_ended", settings=OpenEndedSettings, read_truth=_read_truth, lazy=_lazy)
def open_ended(text: str, truth: str, settings: OpenEndedSettings) -> dict:
    """ROUGE against one reference."""
    answer, reference = words(settings.answer(text) or ""), words(truth)
    longest = rouge_l(answer, reference)
    mean = (rouge_n(answer, reference, 1) + rouge_n(answer, reference, min(2, len(reference))) + longest) / 3
    chosen = longest if settings.measure == "rouge_l" else mean
    return {
        "accuracy": float(chosen >= settings.threshold and chosen > 0),
        "soft_accuracy": chosen,
        "parsed": float(bool(answer)),
        "rouge_l": longest,
        "rouge": mean,
    }
