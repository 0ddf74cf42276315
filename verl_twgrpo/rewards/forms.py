"""The grammar of answers made of numbers: one number, times, intervals, boxes. Strict, and linear in the text.

Numbers are written in ASCII digits, with an optional fraction and exponent, at most ``NUMBER_CHARS`` long. ``nan``,
``inf`` and what overflows to infinity (``1e400``) are no numbers. What does not fit a form as a whole is no answer:
nothing is searched for inside a sentence, nothing is evaluated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

ANSWER_CHARS = 32_000
"""Longest answer, in characters, that is read: a track of 500 boxes stays below."""
NUMBER_CHARS = 40
"""Longest number, in characters: a double's shortest text has at most 25."""

Interval = tuple[float, float]
Box = tuple[float, float, float, float]

_DIGITS = frozenset("0123456789")
# each alternative is a run of its own characters: no text is looked at twice
_TOKEN = re.compile(r"\s+|[0-9.:]+(?:[eE][+-]?[0-9]+)?|[A-Za-z]+|.", re.DOTALL)
_SECONDS = frozenset({"s", "sec", "secs", "second", "seconds"})
_BETWEEN = frozenset({"to", "and", "-", "–", "—"})
_OPENING = {"[": "]", "(": ")"}


def read_number(text: str) -> float | None:
    """The finite number that ``text`` is, white space around it aside; None for anything else."""
    text = text.strip()
    if not 0 < len(text) <= NUMBER_CHARS or not text.isascii():
        return None
    # float() would also take 1_000, nan, inf and infinity
    if not set(text) <= _DIGITS | set("+-.eE"):
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_integer(text: str) -> int | None:
    """The integer that ``text`` is, a sign allowed and nothing else; None for anything else."""
    text = text.strip()
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not 0 < len(text) <= NUMBER_CHARS or not digits or not set(digits) <= _DIGITS:
        return None
    return int(text)


def read_time(text: str) -> float | None:
    """Seconds of ``12.5``, ``1:05``, ``1:05.5`` or ``1:02:03``; None for anything else. Never negative.

    Minutes and seconds behind a colon are below 60.
    """
    *upper, seconds = text.split(":")
    value = _plain(seconds)
    if value is None or len(upper) > 2 or (upper and value >= 60):
        return None
    scale = 60.0
    for position, part in enumerate(reversed(upper)):
        number = read_integer(part) if set(part) <= _DIGITS else None
        if number is None or (number >= 60 and position < len(upper) - 1):
            return None
        value += scale * number
        scale *= 60.0
    return value if math.isfinite(value) else None


def read_intervals(content: str, *, reversed_ends: bool = False) -> tuple[Interval, ...] | None:
    """The intervals, in seconds, that the answer consists of; None where it is no list of good intervals.

    ``12.5 to 15``, ``12.5 - 15``, ``12.5 and 15``, ``[12.5, 15]``, ``(12.5, 15)``; several as a list of bracketed
    pairs, with or without a bracket around it. A bound is a number or a clock time (``1:05``) and may be followed by
    s, sec or seconds. An interval that ends where it starts, or before, makes the whole answer none: reversed ends are
    put in order only with ``reversed_ends``. A minus sign before a bound is a negative time, hence no answer.
    """
    tokens = _tokens(content)
    if tokens is None:
        return None
    pairs = _pair(tokens) if tokens and tokens[0] not in _OPENING else _bracketed_pairs(tokens)
    if pairs is None:
        return None
    intervals = []
    for start, end in pairs:
        if reversed_ends and end < start:
            start, end = end, start
        if not start < end:
            return None
        intervals.append((start, end))
    return tuple(intervals) or None


def read_boxes(content: str) -> tuple[Box | None, ...] | None:
    """The boxes ``[x1, y1, x2, y2]`` that the answer consists of; None where it is no list of boxes.

    One box, or several as a list, with or without a bracket around it; ``(`` and ``)`` serve as brackets, and ``null``
    or ``none`` stands for no box. Corners are top left, bottom right: a box without area is a bad one, and makes the
    whole answer none. Coordinates may be negative or past the frame; ``geometry.clip_box`` cuts them.
    """
    tokens = _tokens(content)
    if tokens is None:
        return None
    items = _bracketed_boxes(tokens)
    if items is None or not any(items):
        return None
    for box in items:
        if box is not None and not (box[0] < box[2] and box[1] < box[3]):
            return None
    return tuple(items)


def _plain(text: str) -> float | None:
    """A number without a sign."""
    return read_number(text) if text[:1] in _DIGITS or text[:1] == "." else None


def _tokens(content: str) -> list[str] | None:
    """Numbers, words and single characters, white space left out; None for more text than an answer has."""
    if len(content) > ANSWER_CHARS:
        return None
    return [token for token in _TOKEN.findall(content) if not token.isspace()]


def _bound(tokens: Sequence[str]) -> float | None:
    """The time that ``tokens`` are: a number, and a unit at most."""
    if len(tokens) == 2 and tokens[1].lower() in _SECONDS and ":" not in tokens[0]:
        tokens = tokens[:1]
    return read_time(tokens[0]) if len(tokens) == 1 else None


def _pair(tokens: Sequence[str], separators: frozenset[str] = _BETWEEN) -> list[Interval] | None:
    """One pair of times with exactly one separator between them."""
    at = [position for position, token in enumerate(tokens[:6]) if token.lower() in separators]
    if len(at) != 1:
        return None
    start, end = _bound(tokens[: at[0]]), _bound(tokens[at[0] + 1 :])
    return None if start is None or end is None else [(start, end)]


def _bracketed_pairs(tokens: Sequence[str]) -> list[Interval] | None:
    pairs: list[Interval] = []
    groups = _groups(tokens)
    if groups is None:
        return None
    for group in groups:
        pair = _pair(group, frozenset({","}))
        if pair is None:
            return None
        pairs += pair
    return pairs


def _bracketed_boxes(tokens: Sequence[str]) -> list[Box | None] | None:
    boxes: list[Box | None] = []
    groups = _groups(tokens, empty=frozenset({"null", "none"}))
    if groups is None:
        return None
    for group in groups:
        if len(group) == 1 and group[0].lower() in ("null", "none"):
            boxes.append(None)
            continue
        numbers = [_signed(part) for part in _split(group, ",")]
        known = [number for number in numbers if number is not None]
        if len(numbers) != 4 or len(known) != 4:
            return None
        boxes.append((known[0], known[1], known[2], known[3]))
    return boxes


def _signed(tokens: Sequence[str]) -> float | None:
    if len(tokens) == 2 and tokens[0] in ("-", "+"):
        value = _plain(tokens[1])
        return value if value is None or tokens[0] == "+" else -value
    return _plain(tokens[0]) if len(tokens) == 1 else None


def _split(tokens: Sequence[str], separator: str) -> Iterator[list[str]]:
    part: list[str] = []
    for token in tokens:
        if token == separator:
            yield part
            part = []
        else:
            part.append(token)
    yield part


def _groups(tokens: Sequence[str], empty: frozenset[str] = frozenset()) -> list[Sequence[str]] | None:
    """What stands in each innermost bracket of ``[a, b]``, ``[a, b], [c, d]`` or ``[[a, b], [c, d]]``.

    Between brackets stands exactly one comma; a word of ``empty`` may stand for a bracket.
    """
    if len(tokens) >= 2 and tokens[0] in _OPENING and (tokens[1] in _OPENING or tokens[1].lower() in empty):
        if tokens[-1] != _OPENING[tokens[0]]:
            return None
        tokens = tokens[1:-1]
    groups: list[Sequence[str]] = []
    position, count = 0, len(tokens)
    while position < count:
        token = tokens[position]
        if token.lower() in empty:
            groups.append(tokens[position : position + 1])
        elif token in _OPENING:
            start = position + 1
            while position < count and tokens[position] != _OPENING[token]:
                position += 1
            if position == count:
                return None
            groups.append(tokens[start:position])
        else:
            return None
        position += 1
        if position == count:
            return groups
        if tokens[position] != ",":
            return None
        position += 1
    return None
