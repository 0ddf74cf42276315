"""Classes of tokens: format tags, option letters, digits, words and the like."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

CLASSES = (
    "first token",
    "end of response",
    "format tag",
    "option letter",
    "digit",
    "punctuation",
    "line break",
    "function word",
    "word",
    "word piece",
)
_TAG = re.compile(r"</?(?:think|answer)>")
_FUNCTION_WORD_LIST = """
a an the this that these those it its he she they them his her their him i you we us our your my me who whom which what
and or but nor so yet if because as than then while when where why how not no of to in on at by for from with about into
over after before between through under up down out off is are was were be been being am do does did has have had can
could will would shall should may might must there here also just only both each such some any all
"""
_FUNCTION_WORDS = frozenset(_FUNCTION_WORD_LIST.split())


def token_classes(tokens: Sequence[str], letters: str, end: str) -> list[str]:
    """The class of each token of a response: one of CLASSES. ``letters``: of the question's options."""
    tagged = set()
    starts = np.cumsum([0, *map(len, tokens)])
    for tag in _TAG.finditer("".join(tokens)):
        tagged |= {t for t in range(len(tokens)) if starts[t] < tag.end() and starts[t + 1] > tag.start()}
    classes = []
    for t, token in enumerate(tokens):
        text = token.strip()
        if t == 0:
            name = "first token"
        elif token == end:
            name = "end of response"
        elif t in tagged:
            name = "format tag"
        elif not text:
            name = "line break" if "\n" in token else "punctuation"
        elif text in letters and len(text) == 1:
            name = "option letter"
        elif text.isdigit():
            name = "digit"
        elif not any(character.isalnum() for character in text):
            name = "punctuation"
        elif token[0].isalpha() and tokens[t - 1][-1:].isalpha():
            name = "word piece"
        else:
            name = "function word" if text.lower() in _FUNCTION_WORDS else "word"
        classes.append(name)
    return classes
