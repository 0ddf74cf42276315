"""Put items in order. Truth: the items in their true order, as a list of labels or text (``"B,A,C"``).

The answer names every item once: ``B, A, C`` or ``B -> A -> C``, without regard to case.
"""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Mapping, Sequence
from typing import Any

from ..registry import TaskSettings, task
from ..truth import parse_json

MAX_ITEMS = 1000


def kendall_tau(positions: Sequence[int]) -> float:
    """Kendall's tau of a permutation with the order 0, 1, 2, ...: 1 for that order, -1 for its reverse.

    Raises ``ValueError`` for fewer than two items, where tau is 0/0.
    """
    if len(positions) < 2:
        raise ValueError(f"{len(positions)} items have no order")
    seen: list[int] = []
    discordant = 0
    for position in positions:
        discordant += len(seen) - bisect(seen, position)
        insort(seen, position)
    return 1 - 4 * discordant / (len(positions) * (len(positions) - 1))


def read_order(content: str) -> tuple[str, ...] | None:
    """The labels between commas, or between arrows, in lower case; None if one is empty or there are too many."""
    text = content.strip()
    if len(text) > 1 and text[0] + text[-1] in ("[]", "()"):
        text = text[1:-1]
    for arrow in ("->", "→", ">"):
        text = text.replace(arrow, ",")
    if text.count(",") >= MAX_ITEMS:
        return None
    items = tuple(item.strip().lower() for item in text.split(","))
    return items if all(items) else None


def _read_truth(raw: Any, info: Mapping[str, Any], where: str) -> tuple[str, ...]:
    if isinstance(raw, str) and not raw.lstrip().startswith("["):
        items = read_order(raw) or ()
    else:
        listed = parse_json(raw, where)
        if not isinstance(listed, Sequence) or isinstance(listed, str):
            raise ValueError(f"{where}: ground truth is {raw!r}, need a list of labels in order")
        items = tuple(str(item).strip().lower() for item in listed)
    if not 2 <= len(items) <= MAX_ITEMS or len(set(items)) < len(items):
        raise ValueError(f"{where}: ground truth {raw!r} is no order of 2 to {MAX_ITEMS} different labels")
    if read_order(",".join(items)) != items:
        raise ValueError(f"{where}: ground truth {raw!r} has a label with a comma, an arrow or nothing in it")
    return items


def _gold(truth: Sequence[str]) -> str:
    return f"<answer>{','.join(truth)}</answer>"


def _lazy(truths: Sequence[tuple[str, ...]]) -> dict[str, list[str]]:
    return {
        "the labels in alphabetical order": [_gold(sorted(truth)) for truth in truths],
        "the labels in reverse alphabetical order": [_gold(sorted(truth, reverse=True)) for truth in truths],
    }


@task("ordering", read_truth=_read_truth, gold=_gold, lazy=_lazy)
def ordering(text: str, truth: tuple[str, ...], settings: TaskSettings) -> dict:
    """Kendall's tau, 0 where it is negative: a guess earns nothing on average."""
    content = settings.answer(text)
    items = None if content is None else read_order(content)
    if items is None or len(items) != len(truth) or set(items) != set(truth):
        return {"accuracy": 0.0, "parsed": 0.0, "kendall_tau": None}
    place = {item: position for position, item in enumerate(truth)}
    tau = kendall_tau([place[item] for item in items])
    return {
        "accuracy": float(items == truth),
        "soft_accuracy": max(0.0, tau),
        "parsed": 1.0,
        "kendall_tau": tau,
    }
