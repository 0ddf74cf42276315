"""Every question over the validations of a run: when it became right, when it fell back, and what was answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verl_twgrpo.evaluation import Measure, title
from verl_twgrpo.report.validations import Validation, measures_by_step

from .groups import shown_answer, verdict
from .questions import Question
from .script import rounded


def validation_table(
    dumps: Mapping[int, Path],
    questions: Mapping[str, Question],
    budget: int,
    scored: Mapping[int, Validation],
) -> dict[str, Any] | None:
    """Steps, and by question: truth, kind, and at each step verdict, answer and text (texts up to ``budget`` bytes).

    ``scored``, by step, gives the measures of tasks: at each step mean, lower and upper end, and how many answers.
    A row that cannot be read is counted. Of several rows of a question in one step the first counts.
    """
    if not dumps:
        return None
    steps, unreadable = list(dumps), 0
    table: dict[tuple[str, str], dict[str, Any]] = {}
    left = budget
    for place, path in enumerate(dumps.values()):
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in filter(str.strip, lines):
                try:
                    row = json.loads(line)
                    source, id, text = str(row.get("benchmark") or ""), str(row.get("id") or ""), str(row["output"])
                    scores = [row.get("accuracy"), row.get("soft_accuracy")]
                    accuracy, soft = rounded(scores)
                    truth = str(row["gts"])
                except (ValueError, KeyError, TypeError, AttributeError):
                    unreadable += 1
                    continue
                key = (source, id or str(row.get("input", "")))
                entry = table.setdefault(key, _question(key, id, source, truth, row, questions, len(steps)))
                if entry["answers"][place] is not None:
                    continue
                entry["marks"][place] = verdict(accuracy, soft)
                entry["answers"][place] = shown_answer(text) or ""
                left -= len(text)
                entry["texts"][place] = text if left > 0 else None
    return {
        "steps": steps,
        "questions": list(table.values()),
        "measures": [
            {
                "source": source,
                "task": task,
                "name": title(task, name),
                "values": [_measured(by_step[step]) if step in by_step else None for step in steps],
            }
            for (source, task, name), by_step in measures_by_step(scored).items()
        ],
        "unreadable": unreadable,
        "texts_left_out": left <= 0,
    }


def _measured(measure: Measure) -> list[float | None]:
    return [*rounded([measure.mean, measure.low, measure.high], 5), measure.n]


def _question(
    key: tuple[str, str],
    id: str,
    source: str,
    truth: str,
    row: Mapping[str, Any],
    questions: Mapping[str, Question],
    count: int,
) -> dict[str, Any]:
    known = questions.get(id)
    answers = "several answers" if "," in truth else "one answer"
    return {
        "id": id or key[1][:60],
        "source": source,
        "kind": " · ".join(filter(None, (source, (known.kind if known else "") or row.get("task") or "", answers))),
        "question": (known.text if known and known.text else "") or str(row.get("input", "")).strip()[:300],
        "truth": truth,
        "marks": [None] * count,
        "answers": [None] * count,
        "texts": [None] * count,
    }
