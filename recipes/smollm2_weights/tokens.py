"""Tables by token: classes of tokens (format tags, option letters, digits, words and the like), words, extremes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from verl_twgrpo.algorithm.token_classes import CLASSES
from verl_twgrpo.evaluation.intervals import bootstrap_mean

from .measuring import KINDS, Weighted, mean_entropy
from .statistics import centred, mean_or_nan


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
