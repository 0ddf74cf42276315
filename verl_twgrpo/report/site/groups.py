"""The groups of one step as the page shows them: what stands in its list, and every token with its signals."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute
import pyarrow.parquet

from verl_twgrpo.report.reading import TOKEN_COLUMNS, read_rollouts, read_table
from verl_twgrpo.report.series import spread
from verl_twgrpo.report.soundness import is_numbers_by_token
from verl_twgrpo.rewards import parse_answer
from verl_twgrpo.rewards.routing import DEFAULT_TASK
from verl_twgrpo.rows import rows_by_group

from .questions import Question
from .script import rounded

OPTIONAL = ("data_source", "question", "task", "scores", "advantage", "rollout_log_prob")
"""Columns that a dump of an earlier version may lack."""
KNOWN = {*TOKEN_COLUMNS, *OPTIONAL, "step", "token_ids"}
VIEW = "log_probs_"
"""What the columns of passes over altered videos are called: ``log_probs_{view}``."""
SAID_ALREADY = ("score", "acc")
"""The reward, and verl's name for the accuracy."""
LONGEST_ANSWER = 60
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def read_step(
    path: Path, chosen: Callable[[Mapping[str, str]], list[str]], questions: Mapping[str, Question]
) -> tuple[list[dict[str, Any]], int]:
    """Groups of a step's dump (``chosen`` of group -> question id says which), and how many the step has.

    Only the chosen groups' tokens become Python objects.
    """
    present = pyarrow.parquet.read_schema(path).names
    names = [name for name in present if name not in ("token_ids", "step")]
    table = read_table(path, [*TOKEN_COLUMNS, *(name for name in names if name not in TOKEN_COLUMNS)])
    ids = dict(zip(table["group"].to_pylist(), table["id"].to_pylist(), strict=True))
    wanted = chosen(ids)
    numbers = {uid: number for number, uid in enumerate(ids)}
    rows = table.filter(pyarrow.compute.is_in(table["group"], pyarrow.array(wanted, pyarrow.string()))).to_pylist()
    further = [name for name in names if name not in KNOWN and is_numbers_by_token(table.schema.field(name).type)]
    prompts = {row.group: row.prompt for row in read_rollouts(_rollouts(path))[0]}
    return [
        _group(numbers[uid], uid, [rows[place] for place in places], further, prompts.get(uid), questions)
        for uid, places in rows_by_group(row["group"] for row in rows).items()
    ], len(ids)


def _rollouts(path: Path) -> Path:
    """verl's file of the same step."""
    return path.parent.parent / "rollouts" / f"{int(path.stem.removeprefix('step_'))}.jsonl"


def list_entry(step: int, group: Mapping[str, Any]) -> dict[str, Any]:
    """What the list of groups shows and filters by."""
    rewards = [response["reward"] for response in group["responses"]]
    verdicts = Counter(response["verdict"] for response in group["responses"])
    answers = Counter(response["answer"] if response["parsed"] else "" for response in group["responses"])
    return {
        **{name: group[name] for name in ("g", "id", "question", "truth", "source", "task")},
        "step": step,
        "mean": _number(np.mean(rewards)),
        "spread": _number(spread(rewards)),
        "right": round(verdicts["right"] / len(rewards), 3),
        "unparsed": answers[""],
        "answers": answers.most_common(),
    }


def _group(
    number: int,
    uid: str,
    rows: Sequence[Mapping[str, Any]],
    further: Iterable[str],
    prompt: str | None,
    questions: Mapping[str, Question],
) -> dict[str, Any]:
    first = rows[0]
    known = questions.get(first["id"])
    task = first.get("task") or DEFAULT_TASK
    signals = _signals(rows, further)
    shared = {name: longest for name, values in signals.items() if (longest := _by_position(values)) is not None}
    own = {name: values for name, values in signals.items() if name not in shared}
    responses = [_response(row, task, {name: values[k] for name, values in own.items()}) for k, row in enumerate(rows)]
    # their names once per group
    names = list(dict.fromkeys(name for response in responses for name in response["scores"]))
    for response in responses:
        response["scores"] = [response["scores"].get(name) for name in names]
    return {
        "g": number,
        "id": first["id"] or uid,
        "question": first.get("question") or (known.text if known else "") or _question_of(prompt) or "",
        "options": known.options if known else [],
        "truth": first["ground_truth"],
        "source": first.get("data_source") or (known.source if known else ""),
        "task": task,
        "prompt": prompt,
        "shortest": min(len(row["tokens"]) for row in rows),
        "signals": list(signals),
        "shared": shared,
        "scores": names,
        "responses": responses,
    }


def _response(row: Mapping[str, Any], task: str, signals: Mapping[str, Any]) -> dict[str, Any]:
    answer, scores = shown_answer(row["text"]), dict(row.get("scores") or ())
    # a dump of an earlier version does not say whether the reward found an answer
    parsed = parse_answer(row["text"]) is not None if task == DEFAULT_TASK else answer is not None
    parsed = bool(scores.get("parsed", parsed))
    accuracy, soft = row["accuracy"], row["soft_accuracy"]
    scores = {name: row[name] for name in ("accuracy", "soft_accuracy", "format") if row[name] is not None} | scores
    return {
        "tokens": row["tokens"],
        "signals": {name: values for name, values in signals.items() if values is not None},
        "reward": _number(row["reward"]),
        "answer": answer,
        "parsed": parsed and answer is not None,
        "verdict": verdict(accuracy, soft),
        "scores": {
            name: _number(value) for name, value in scores.items() if value is not None and name not in SAID_ALREADY
        },
        "advantage": _number(np.mean(row["advantage"])) if row.get("advantage") else None,
    }


def shown_answer(text: str) -> str | None:
    """The answer that a text gives, in few words: its letters, or what stands between its last tags; None for none."""
    letters = parse_answer(text)
    if letters is not None:
        return ",".join(sorted(letters))
    found = _ANSWER.findall(text)
    return found[-1].strip()[:LONGEST_ANSWER] or None if found else None


def verdict(accuracy: float | None, soft: float | None) -> str:
    """ "right", "part" (some of it) or "wrong"; "" where the task says nothing."""
    if accuracy is None and soft is None:
        return ""
    return "right" if (accuracy if accuracy is not None else soft) == 1 else "part" if soft else "wrong"


def _signals(rows: Sequence[Mapping[str, Any]], further: Iterable[str]) -> dict[str, list[Any]]:
    """Signal -> values by response: numbers by token, one number where all are the same, None where there are none."""
    columns: dict[str, list[Any]] = {
        "weight": [row["weight"] for row in rows],
        "D_t": [row["divergence"] for row in rows],
        "entropy": [row["entropy"] for row in rows],
        "advantage": [row.get("advantage") for row in rows],
        "log-prob": [row["log_prob"] for row in rows],
        "log-prob − rollout": [_difference(row["log_prob"], row.get("rollout_log_prob")) for row in rows],
    }
    for name in further:
        values = [row[name] for row in rows]
        if name.startswith(VIEW):
            columns[f"|d| {name.removeprefix(VIEW)}"] = [
                _difference(row["log_prob"], value, absolute=True) for row, value in zip(rows, values, strict=True)
            ]
        else:
            columns[name] = values
    return {name: _compact(values) for name, values in columns.items() if any(value is not None for value in values)}


def _difference(log_probs: Sequence[float], other: Any, absolute: bool = False) -> Any:
    if other is None or len(other) != len(log_probs):
        return None
    difference = np.asarray(log_probs, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    return np.abs(difference) if absolute else difference


def _by_position(values: Sequence[Any]) -> list[float | None] | None:
    """Of values by response that only depend on the position, those of the longest response; None if they do not."""
    if not all(isinstance(value, list) for value in values):
        return None
    longest = max(values, key=len)
    return longest if all(value == longest[: len(value)] for value in values) else None


def _compact(values: Sequence[Any]) -> list[Any]:
    """Rounded, all at once: a call for each response would take most of the time of a long run's page."""
    near = rounded([number for value in values if value is not None for number in value], decimals=6)
    found: list[Any] = []
    start = 0
    for value in values:
        if value is None:
            found.append(None)
            continue
        one = near[start : start + len(value)]
        start += len(value)
        found.append(one[0] if one and one.count(one[0]) == len(one) else one)
    return found


def _number(value: Any) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    near = float(f"{value:.4g}")
    return int(near) if near.is_integer() else near


def _question_of(prompt: str | None) -> str:
    """The first line of the user's turn, where no file names the question."""
    lines = [line.strip() for line in (prompt or "").split("\n")]
    said = [line for line in lines if line and line not in ("system", "user", "assistant")]
    return said[0] if said else ""
