"""Read the answer letters out of a response: one strict grammar, and leniencies that are named and off by default.

Strict: the text holds exactly one ``<answer>`` and one ``</answer>``, in this order, and between them stand capital
letters separated by commas. White space around letters and commas is free; the letters are a set, so order and
repetition do not count. Everything else is no answer.

A leniency is either a *finder*, which says where the answer stands if there is not exactly one pair of tags, or a
*rewrite*, which turns the text of the answer towards the strict form. After all of them the strict grammar has the
last word, and an answer that the strict grammar reads is never read in another way.

Every step is linear in the length of the text: plain string searches, and regular expressions without a repetition.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Set

LETTERS = string.ascii_uppercase
"""Of options, in order; a reading has a frozenset of them."""
_LETTERS = frozenset(LETTERS)
OPEN_TAG, CLOSE_TAG = "<answer>", "</answer>"
END_OF_THINKING = "</think>"

LENIENT_CHARS = 10_000
"""Longest answer, in characters, that the rewrites look at: 26 options quoted in full stay well below."""


def parse_answer(text: str, lenient: bool | Iterable[str] = False) -> frozenset[str] | None:
    """The set of answer letters in a response, or None where the grammar finds no answer. Never empty.

    ``lenient`` is False (strict), True (every rule of ``LENIENCIES``) or the names of the rules to apply.
    Letters are not compared with the options: ``T`` is an answer, if a wrong one.

    Raises ``ValueError`` for an unknown rule name. No text raises.
    """
    rules = leniency_names(lenient)
    content = answer_text(text, rules)
    if content is None:
        return None
    letters = read_letters(content)
    if letters is None and rules and len(content) <= LENIENT_CHARS:
        for name, rewrite in REWRITES.items():
            if name in rules:
                content = rewrite(content)
        letters = read_letters(content)
    return letters


def answer_text(text: str, rules: Set[str] = frozenset()) -> str | None:
    """The text of the answer: between the only pair of answer tags, or where the finders among ``rules`` see it."""
    content = _tagged_answer(text)
    if content is None:
        found = (find(text) for name, find in FINDERS.items() if name in rules)
        content = next((answer for answer in found if answer is not None), None)
    return content


def read_letters(content: str) -> frozenset[str] | None:
    """The set of letters in a comma-separated list such as ``" A, C"``, or None if anything else stands in it."""
    # Without its white space a list is letter, comma, ..., letter. Slices take a megabyte of that in milliseconds.
    compact = "".join(content.split())
    if len(compact) % 2 == 0 or compact[1::2] != "," * (len(compact) // 2):
        return None
    letters = frozenset(compact[0::2])
    return letters if letters <= _LETTERS else None


def leniency_names(lenient: bool | Iterable[str], known: Set[str] | None = None) -> frozenset[str]:
    """The names of the rules that a ``lenient`` setting turns on, of those ``known`` (default: ``LENIENCIES``).

    Raises ``ValueError`` for an unknown name.
    """
    every_rule = LENIENCIES if known is None else frozenset(known)
    if lenient is False:
        return frozenset()
    if lenient is True:
        return every_rule
    is_list = isinstance(lenient, Iterable) and not isinstance(lenient, str)
    names = frozenset(map(str, lenient)) if is_list else None
    if names is None or not names <= every_rule:
        raise ValueError(
            f"lenient: {lenient!r} is neither true, false nor a list of rules among {', '.join(sorted(every_rule))}"
        )
    return names


# --- finders: where the answer stands, if not between exactly one pair of tags ------------------------------------


def _tagged_answer(text: str) -> str | None:
    """Strict: the text between the only opening and the only closing tag."""
    if text.count(OPEN_TAG) != 1 or text.count(CLOSE_TAG) != 1:
        return None
    _, closed, content = text.partition(CLOSE_TAG)[0].rpartition(OPEN_TAG)
    return content if closed else None


def _nested_tag(text: str) -> str | None:
    """``<answer>D <answer></answer></answer>``: one outermost pair, in which one piece of text is not blank."""
    start, end = text.find(OPEN_TAG), text.rfind(CLOSE_TAG)
    if not 0 <= start < end <= start + LENIENT_CHARS or text.count(OPEN_TAG) != text.count(CLOSE_TAG):
        return None
    depth, contents = 0, []
    for piece in re.split("(</?answer>)", text[start:end]):
        if piece == OPEN_TAG:
            depth += 1
        elif piece == CLOSE_TAG:
            depth -= 1
            if depth == 0:  # a second outermost pair follows: two answers
                return None
        elif piece.strip():
            contents.append(piece)
    return contents[0] if depth == 1 and len(contents) == 1 else None


def _answer_in_thinking(text: str) -> str | None:
    """``<think>maybe <answer>A</answer></think><answer>B</answer>``: the only pair after the thinking counts."""
    _, closed, after = text.rpartition(END_OF_THINKING)
    return _tagged_answer(after) if closed else None


def _wrong_closing_tag(text: str) -> str | None:
    """``<answer>A, C</option>`` at the end of the text. With no closing tag at all the answer may be cut off: none."""
    if text.count(OPEN_TAG) != 1 or CLOSE_TAG in text:
        return None
    content, closed, name = text.partition(OPEN_TAG)[2].partition("</")
    return content if closed and name.strip().removesuffix(">").isalpha() else None


def _wrong_opening_tag(text: str) -> str | None:
    """``.answer>A</answer>``: the opening tag lost its first character."""
    if OPEN_TAG in text or text.count("answer>") != 2 or text.count(CLOSE_TAG) != 1:
        return None
    _, opened, content = text.partition(CLOSE_TAG)[0].partition("answer>")
    return content if opened else None


def _answer_line(text: str) -> str | None:
    """``Final answer: A, D`` (or ``Answer:``, ``答案：``) as the last line of a text without answer tags."""
    if OPEN_TAG in text or CLOSE_TAG in text:
        return None
    line = text.rstrip().removesuffix(END_OF_THINKING).rstrip().rpartition("\n")[2].lstrip()
    for marker in ("final answer", "answer", "答案"):
        rest = line[len(marker) :].lstrip()
        if line[: len(marker)].lower() == marker and rest[:1] in (":", "："):
            return rest[1:]
    return None


def _bare(text: str) -> str | None:
    """``A, B``: a text without answer tags is the answer as a whole, or what follows the thinking is."""
    return None if OPEN_TAG in text or CLOSE_TAG in text else text.rpartition(END_OF_THINKING)[2]


# --- rewrites: from what a reader understands to capital letters between commas -----------------------------------

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {ord("、"): ","}
_LABEL = re.compile(r"(?<!\w)\(?([A-Z])[.):](?=\s|$)")


def ascii_forms(content: str) -> str:
    """``Ａ，Ｃ`` or ``A、C``: full-width forms are their ASCII characters, the ideographic comma is a comma."""
    return content.translate(_FULL_WIDTH)


def _option_label(content: str) -> str:
    """``A. The cube turns`` or ``B)``: one labelled option a line stands for its label."""
    labels = []
    for line in filter(None, map(str.strip, content.splitlines())):
        label = _LABEL.match(line)
        if label is None or _LABEL.search(line, label.end()):  # a second label: which one is meant?
            return content
        labels.append(label[1])
    return ",".join(labels)


def _parentheses(content: str) -> str:
    """``(A), [C]``: brackets around a letter are dropped."""
    return re.sub(r"[(\[]([A-Za-z])[)\]]", r"\1", content)


def _and_word(content: str) -> str:
    """``B, C, and D`` or ``B & C``: the word is a comma."""
    words: list[str] = []
    for word in content.replace("&", " & ").split():
        if words and word.lower() in ("and", "&"):
            words[-1] = words[-1].removesuffix(",") + ","
        else:
            words.append(word)
    return " ".join(words)


def _semicolon(content: str) -> str:
    """``A;B``: a semicolon is a comma."""
    return content.replace(";", ",")


def _concatenated(content: str) -> str:
    """``CD``: different capital letters in one word are a list. ``NONE`` repeats one, and stays a word."""
    items = map(str.strip, content.split(","))
    return ",".join(",".join(item) if len(item) == len(_LETTERS.intersection(item)) else item for item in items)


def _spaces(content: str) -> str:
    """``C D``, also on two lines: white space between letters is a comma."""
    return ",".join(",".join(item.split()) for item in content.split(","))


def _dangling_comma(content: str) -> str:
    """``B,`` or ``B, , C``: commas with nothing between them separate nothing."""
    return ",".join(filter(str.strip, content.split(",")))


def _lower_case(content: str) -> str:
    """``c``: a small letter that stands alone is its capital."""
    items = map(str.strip, content.split(","))
    return ",".join(item.upper() if len(item) == 1 and item.isascii() else item for item in items)


FINDERS: dict[str, Callable[[str], str | None]] = {
    "nested_tag": _nested_tag,
    "answer_in_thinking": _answer_in_thinking,
    "wrong_closing_tag": _wrong_closing_tag,
    "wrong_opening_tag": _wrong_opening_tag,
    "answer_line": _answer_line,
    "bare": _bare,
}
"""Finders by name, in the order in which they are asked; the first one that finds a place decides."""

REWRITES: dict[str, Callable[[str], str]] = {
    "full_width": ascii_forms,
    "option_label": _option_label,
    "parentheses": _parentheses,
    "and_word": _and_word,
    "semicolon": _semicolon,
    "concatenated": _concatenated,  # before spaces, or the words of "A OR B" would be lists of letters
    "spaces": _spaces,
    "dangling_comma": _dangling_comma,
    "lower_case": _lower_case,
}
"""Rewrites by name, in the order in which they are applied."""

LENIENCIES = frozenset(FINDERS) | frozenset(REWRITES)
"""The names of all leniencies."""
