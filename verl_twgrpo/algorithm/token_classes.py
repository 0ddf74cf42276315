"""What kind of token a token of a response is: tags, option letters, verdict words, function words and the like."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate

CLASSES = (
    "first token",
    "end of response",
    "format tag",
    "option letter",
    "digit",
    "punctuation",
    "line break",
    "verdict word",
    "function word",
    "word",
    "word piece",
)
_TAG = re.compile(r"</?(?:think|answer)>")
_VERDICTS = "yes no true false correct incorrect right wrong possible impossible"
VERDICT_WORDS = frozenset(_VERDICTS.split())
_FUNCTION = """
a an the this that these those it its he she they them his her their him i you we us our your my me who whom which what
and or but nor so yet if because as than then while when where why how not of to in on at by for from with about
into over after before between through under up down out off is are was were be been being am do does did has
have had can could will would shall should may might must there here also just only both each such some any all
"""
FUNCTION_WORDS = frozenset(_FUNCTION.split())


def token_classes(tokens: Sequence[str], letters: str, end: str = "") -> list[str]:
    """The class of each token of a response: one of ``CLASSES``.

    A token counts as the word in it, whatever spaces and punctuation it has around that word (``" yes. "``). A word
    that takes several tokens is a word and word pieces, whichever word it is.

    Args:
        letters: of the question's options. end: the token that ends a response.
    """
    tagged: set[int] = set()
    starts = [0, *accumulate(map(len, tokens))]
    for tag in _TAG.finditer("".join(tokens)):
        tagged |= {t for t in range(len(tokens)) if starts[t] < tag.end() and starts[t + 1] > tag.start()}
    return [
        "first token" if t == 0 else "format tag" if t in tagged else _class(token, tokens[t - 1], letters, end)
        for t, token in enumerate(tokens)
    ]


def _class(token: str, before: str, letters: str, end: str) -> str:
    word = re.sub(r"^[\W_]+|[\W_]+$", "", token)
    if end and token == end:
        return "end of response"
    if not word:
        return "line break" if "\n" in token else "punctuation"
    if token[0].isalpha() and before[-1:].isalpha():
        return "word piece"
    if len(word) == 1 and word in letters:
        return "option letter"
    if word.isdigit():
        return "digit"
    if word.lower() in VERDICT_WORDS:
        return "verdict word"
    return "function word" if word.lower() in FUNCTION_WORDS else "word"
