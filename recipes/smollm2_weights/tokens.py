"""Tables by token: classes of tokens (format tags, option letters, digits, words and the like), words, extremes."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from verl_twgrpo.evaluation.intervals import bootstrap_mean

from .measuring import KINDS, Weighted, mean_entropy
from .statistics import centred, mean_or_nan

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


def class_table(groups: Sequence[Weighted], classes: Sequence[Sequence[Sequence[str]]]) -> list[dict]:
    """Mean weight of the tokens of a class. classes: group, row, token.

    ``same_live``: the mean of weights less that of positions of the group with as many live rows, so that a class
    that stands early or late gains nothing from that; interval from resampling groups.
    """
    table = []
    for name in CLASSES:
        for kind in KINDS:
            raw, same, tokens = [], [], 0
            for group, rows in zip(groups, classes, strict=True):
                where = np.array([t for row in rows for t, found in enumerate(row) if found == name], dtype=int)
                if not len(where):
                    continue
                tokens += len(where)
                raw.append(group.weight[kind][where].mean())
                same.append(_centred_after_first(group, kind)[where].mean())
            if not tokens:
                continue
            low, high = bootstrap_mean(same, seed=0)
            table.append(
                {
                    "class": name,
                    "reading": kind,
                    "tokens": tokens,
                    "groups": len(raw),
                    "weight": mean_or_nan(raw),
                    "same_live": mean_or_nan(same),
                    "low": low,
                    "high": high,
                }
            )
    return table


def word_table(groups: Sequence[Weighted], tokens: Sequence[Sequence[Sequence[str]]], least: int = 20) -> list[dict]:
    """Tokens that come ``least`` times or more after position 0, heaviest first within a reading.

    ``same_live`` as in ``class_table``, a mean over the token's occurrences.
    """
    table = []
    for kind in KINDS:
        found: dict[str, list[tuple[float, float]]] = {}
        for group, rows in zip(groups, tokens, strict=True):
            same = _centred_after_first(group, kind)
            for row in rows:
                for t, token in enumerate(row[1:], start=1):
                    found.setdefault(token, []).append((group.weight[kind][t], same[t]))
        lines = [
            {"reading": kind, "token": token.replace("\n", "↵"),
             "times": len(values), "weight": mean_or_nan([v[0] for v in values]),
             "same_live": mean_or_nan([v[1] for v in values])}
            for token, values in found.items() if len(values) >= least
        ]  # fmt: skip
        table += sorted(lines, key=lambda line: -line["same_live"])
    return table


def extreme_table(groups: Sequence[Weighted], tokens: Sequence[Sequence[Sequence[str]]]) -> list[dict]:
    """The heaviest and the lightest position of each group after position 0, with what its live rows say there."""
    table = []
    for group, rows in zip(groups, tokens, strict=True):
        for kind in KINDS:
            weight = group.weight[kind]
            for name, t in (("heaviest", weight[1:].argmax() + 1), ("lightest", weight[1:].argmin() + 1)):
                table.append(
                    {
                        "reading": kind,
                        "which": name,
                        "id": group.sample.id,
                        "position": int(t),
                        "live_rows": int(group.live_T[t]),
                        "weight": weight[t],
                        "divergence": group.divergence[kind][t],
                        "entropy": mean_entropy(group)[t],
                        "tokens": " | ".join(in_context(row, t) for row in rows if t < len(row)),
                    }
                )
    return table


def in_context(tokens: Sequence[str], t: int) -> str:
    """Token t in brackets after the three before it, on one line."""
    return ("".join(tokens[max(0, t - 3) : t]) + f"[{tokens[t]}]").replace("\n", "↵")


def _centred_after_first(group: Weighted, kind: str) -> np.ndarray:
    """``centred`` weights; position 0, which is alone in its kind, keeps its distance from the positions like it."""
    weight, live_T = group.weight[kind].astype(float), group.live_T
    if len(weight) == 1:
        return np.zeros(1)
    like = live_T[1:] == live_T[0]
    first = weight[0] - (weight[1:][like].mean() if like.any() else weight[0])
    return np.concatenate([[first], centred(weight[1:], live_T[1:])])
