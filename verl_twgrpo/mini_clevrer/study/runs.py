"""Read what the study's runs left behind: held-out questions, answers to them, and verl's scalars."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow

from verl_twgrpo.data.parquet import read_parquet
from verl_twgrpo.evaluation import Prediction, read_predictions
from verl_twgrpo.evaluation.metrics import QUESTIONS
from verl_twgrpo.mini_clevrer.study.arms import ARMS, BLANK_SOURCE, RECORD, SOURCE, START
from verl_twgrpo.rewards import exact_reward, parse_answer, soft_reward
from verl_twgrpo.run_folder import read_scalars

SEEN, BLANK = "seen", "blank"
FRAMES = {SOURCE: SEEN, BLANK_SOURCE: BLANK}
"""Data source -> whether the model was shown the question's frames, or blank ones."""

KINDS = (*QUESTIONS, "differs")
"""Questions with one true option, with several, all, and those whose truth is not what the video showed."""


@dataclass(frozen=True)
class Question:
    """A held-out question. observed: the letters that held in the video as it was. options: how many there are."""

    id: str
    truth: frozenset[str]
    observed: frozenset[str]
    options: int


@dataclass(frozen=True)
class Answers:
    """One model's answers at one step, in the order of the N questions: accuracies in [0, 1], float64, and texts."""

    strict_N: np.ndarray
    soft_N: np.ndarray
    texts: tuple[str, ...]


@dataclass(frozen=True)
class StudyRun:
    """A finished run. seed: None for the start model. answers: by step and frames. scalars: name -> step -> value."""

    arm: str
    seed: int | None
    record: Mapping[str, Any]
    answers: Mapping[tuple[int, str], Answers]
    scalars: Mapping[str, Mapping[int, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """The questions, and the finished runs: the start model first, then by arm in the order of ``ARMS``, and seed."""

    questions: tuple[Question, ...]
    runs: tuple[StudyRun, ...]

    def arms(self) -> list[str]:
        """Arms with a finished run, in order, without the start model."""
        return list(dict.fromkeys(run.arm for run in self.runs if run.arm != START))

    def of(self, arm: str) -> list[StudyRun]:
        """The runs of one arm, by seed."""
        return [run for run in self.runs if run.arm == arm]

    def masks(self) -> dict[str, np.ndarray]:
        """Which of the N questions are of each of ``KINDS`` (bool); kinds without a question are left out."""
        sizes_N = np.array([len(question.truth) for question in self.questions])
        differs_N = np.array([question.truth != question.observed for question in self.questions])
        masks = (sizes_N == 1, sizes_N > 1, sizes_N > 0, differs_N)
        return {kind: mask_N for kind, mask_N in zip(KINDS, masks, strict=True) if mask_N.any()}


def read_study(root: Path) -> Study:
    """Read ``root/data/validation.parquet`` and the finished runs under ``root/runs``.

    Raises ``ValueError`` or ``FileNotFoundError`` naming the file that is missing or damaged.
    """
    questions = read_questions(root / "data" / "validation.parquet")
    runs = [read_run(record.parent, questions) for record in sorted((root / "runs").glob(f"*/{RECORD}"))]
    order = {arm: position for position, arm in enumerate((START, *ARMS))}
    runs.sort(key=lambda run: (order[run.arm], run.seed or 0))
    return Study(tuple(questions), tuple(runs))


def read_questions(path: Path) -> list[Question]:
    """The questions of a parquet file of mini-CLEVRER. Raises ``ValueError`` naming file and row of a bad one."""
    try:
        items = read_parquet(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: not a parquet file ({error}); make the study's data again") from None
    questions = []
    for number, item in enumerate(items):
        observed = item.provenance.get("observed")
        if not isinstance(observed, list):
            raise ValueError(
                f"{path}: row {number} ({item.id}): provenance has no list 'observed'; make the data again"
            )
        questions.append(Question(item.id, item.answers, frozenset(observed), len(item.options)))
    return questions


def read_run(folder: Path, questions: Sequence[Question]) -> StudyRun:
    """Read a finished run ``<arm>-s<seed>`` or ``start``. Raises ``ValueError`` naming what is damaged."""
    name = re.fullmatch(r"(\w+)-s(\d+)", folder.name)
    arm, seed = (name[1], int(name[2])) if name else (folder.name, None)
    if (arm not in ARMS) if name else (arm != START):
        raise ValueError(f"{folder}: not a run of the study; need start, or ARM-sSEED with ARM of {', '.join(ARMS)}")
    answers = {}
    for path in (folder / "validation").glob("*.jsonl"):
        if not path.stem.isdecimal():
            raise ValueError(f"{path}: need a step as the name, such as 40.jsonl; remove the file")
        for frames, found in read_answers(path, questions).items():
            answers[int(path.stem), frames] = found
    scalars = {} if arm == START else read_scalars(folder / "tensorboard")
    if arm != START and not scalars:
        raise ValueError(f"{folder / 'tensorboard'}: the event files hold no scalar; make the run again")
    return StudyRun(arm, seed, _read_record(folder / RECORD), answers, scalars)


def read_answers(path: Path, questions: Sequence[Question]) -> dict[str, Answers]:
    """The answers in one of verl's validation dumps, by frames; scored with the strict grammar of the reward.

    Raises ``ValueError`` naming file and line for a row that cannot be read, a benchmark or question that is not the
    study's, another truth than the question's, and a question without an answer.
    """
    predictions = read_predictions([path])
    if predictions.unreadable:
        raise ValueError(f"{predictions.unreadable[0]}; the file is damaged: make the run again")
    known = {question.id: question for question in questions}
    by_frames: dict[str, dict[str, Prediction]] = {}
    for row in predictions.rows:
        if row.benchmark not in FRAMES:
            raise ValueError(f"{row.where}: benchmark {row.benchmark} is not one of {', '.join(FRAMES)}")
        if row.id not in known or row.truth != known[row.id].truth:
            raise ValueError(f"{row.where}: no such question with this truth ({row.id}): the run had other data")
        by_frames.setdefault(FRAMES[row.benchmark], {})[row.id] = row
    answers = {}
    for frames, rows in by_frames.items():
        missing = [question.id for question in questions if question.id not in rows]
        if missing:
            raise ValueError(
                f"{path}: {len(missing)} of {len(questions)} questions ({frames} frames) have no answer, first"
                f" {missing[0]}; the file is cut off or rollouts failed: make the run again"
            )
        texts = tuple(rows[question.id].text for question in questions)
        answers[frames] = Answers(*score([parse_answer(text) for text in texts], questions), texts)
    return answers


def score(predicted: Sequence[frozenset[str] | None], questions: Sequence[Question]) -> tuple[np.ndarray, np.ndarray]:
    """Strict and soft accuracy (Eq. 7) of each of N answers, float64 in [0, 1]. None and an empty set score 0."""
    strict_N, soft_N = (
        np.array([reward(answer, question.truth) for answer, question in zip(predicted, questions, strict=True)])
        for reward in (exact_reward, soft_reward)
    )
    return strict_N, soft_N


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); make the run again") from None
    if not isinstance(record, dict) or not isinstance(record.get("seconds"), int | float):
        raise ValueError(f"{path}: need an object with the number 'seconds'; make the run again")
    return record
