"""Truths and responses of every task, shared by the tests of the tasks."""

from __future__ import annotations

import random
import string

from verl_twgrpo.bench import reward as bench

FRAME = {"coordinates": "normalised"}
TRUTHS = {
    **bench.TRUTHS,
    "tracking": {"boxes": [[0.1, 0.1, 0.5, 0.5], None, [0.2, 0.1, 0.6, 0.5]], **FRAME},
    "numeric": {"number": 12.5, "unit": "m"},
}
"""One truth of every task of the package, in its documented form."""

PIECES = [
    *("<think>", "</think>", "<answer>", "</answer>", "<glue>", "</glue>", "\n", " ", ",", "[", "]", "(", ")", "[["),
    *("]]", "null", "to", "and", "-", "–", "->", "→", ":", ".", "%", "m", "s", "seconds", "yes", "No", "A", "B,C"),
    *("1", "0", "12.5", "-3", "1e400", "1e-320", "nan", "inf", "Infinity", "1_000", "1,234", "0x1F", "１２", "½", "٣"),
    *("1:05", "1:75", "::", "9" * 50, "\x00", "\ud800", "\u202e", "🙂", "__import__('os')", "(" * 200, "e5", "E+"),
]


def random_response(draw: random.Random) -> str:
    """Pieces of answers in any order, half of the time where an answer belongs."""
    count = draw.choice((1, 2, 4, 8, 16, 32))
    pieces = draw.choices(PIECES, k=count) + draw.choices(string.printable, k=draw.choice((0, 0, 3)))
    draw.shuffle(pieces)
    text = "".join(pieces)
    frames = ("{}", "<answer>{}</answer>", "<think>x</think><answer>{}</answer>", "<answer>C</answer><glue>{}</glue>")
    return draw.choice(frames).replace("{}", text)
