"""The settings that a run wrote beside its dumps, and in what those of several runs differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

FILE = "tw_grpo/settings.yaml"


def read_settings(run: Path) -> dict[str, Any]:
    """Settings by dotted name; empty where the run wrote none (an earlier version, or no dump_dir) or half of them."""
    path = run / FILE
    if not path.is_file():
        return {}
    try:
        return flatten(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``; lists stay whole."""
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree} if prefix else {}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def differences(settings: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Name and value by run of every setting in which the runs differ; "not set" where a run has none of that name.

    Runs that wrote no settings at all have "?", and are not compared.
    """
    rows = []
    for name in sorted({name for one in settings for name in one}):
        known = [str(one[name]) if name in one else "not set" for one in settings if one]
        if len(set(known)) > 1:
            values = iter(known)
            rows.append((name, [next(values) if one else "?" for one in settings]))
    return rows


def file_names(value: Any) -> list[str]:
    """``data.train_files`` and its like: one name, several, or none that is known."""
    names = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return [name for name in names if isinstance(name, str) and "${" not in name]
