"""Read ground truth and options, and refuse what could not be scored: a bad truth trains on noise without a sound."""

from __future__ import annotations

import string
from collections.abc import Sized

from .answers import CLOSE_TAG, OPEN_TAG, read_letters


def option_letters(options: Sized, where: str) -> str:
    """The letters of an item's options, in order: ``"ABCD"`` for four. ``where`` names the row in errors.

    Raises ``ValueError`` if there are no options, or more than letters.
    """
    count = len(options)
    if not 1 <= count <= len(string.ascii_uppercase):
        raise ValueError(f"{where}: {count} options, need 1 to {len(string.ascii_uppercase)}")
    return string.ascii_uppercase[:count]


def read_truth(ground_truth: str, letters: str, where: str) -> frozenset[str]:
    """The set of true letters in ``"A,C"``, or in the released data's form ``"<answer>A,C</answer>"``.

    ``letters`` are those of the item's options, ``where`` names the row in errors.
    Raises ``ValueError`` if the truth is empty, badly written, repeats a letter or names one that is not an option.
    """
    if not isinstance(ground_truth, str):
        raise ValueError(f"{where}: ground truth is a {type(ground_truth).__name__}, need text such as 'A,C'")
    content = ground_truth.strip()
    if content.startswith(OPEN_TAG) and content.endswith(CLOSE_TAG):
        content = content[len(OPEN_TAG) : -len(CLOSE_TAG)]
    if not content.strip():
        raise ValueError(f"{where}: ground truth is empty, the soft reward would be 0/0: leave the row out")
    truth = read_letters(content)
    if truth is None or len(truth) != content.count(",") + 1:
        raise ValueError(f"{where}: ground truth {ground_truth!r} is not a list of different letters such as 'A,C'")
    stray = ",".join(sorted(truth.difference(letters)))
    if stray:
        raise ValueError(f"{where}: ground truth {stray} is not among the options {','.join(letters)}")
    return truth
