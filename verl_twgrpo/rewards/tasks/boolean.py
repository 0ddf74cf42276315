"""Yes or no. Truth: ``"yes"`` or ``"no"`` (or true and false)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..registry import TaskSettings, task

WORDS = {"yes": True, "true": True, "no": False, "false": False}


def read_word(content: str) -> bool | None:
    """True for yes or true, False for no or false in any case of letters; None for anything else."""
    word = content.strip()
    return WORDS.get(word.lower()) if len(word) <= 5 else None


def _read_truth(raw: Any, info: Mapping[str, Any], where: str) -> bool:
    value = read_word(raw) if isinstance(raw, str) else raw
    if not isinstance(value, bool):
        raise ValueError(f"{where}: ground truth is {raw!r}, need yes or no")
    return value


@task("boolean", read_truth=_read_truth, gold=lambda truth: f"<answer>{'yes' if truth else 'no'}</answer>")
def boolean(text: str, truth: bool, settings: TaskSettings) -> dict:
    """1 if the word is the right one."""
    content = settings.answer(text)
    value = None if content is None else read_word(content)
    return {"accuracy": float(value is truth), "parsed": float(value is not None)}
