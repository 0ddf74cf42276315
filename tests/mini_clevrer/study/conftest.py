"""Folders of a study as the driver leaves them, with numbers that tests can predict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

# id, truth, observed
QUESTIONS = (
    ("q0", "A", "A"),
    ("q1", "B", "C"),
    ("q2", "A,B", "A,B"),
    ("q3", "A,C", "A"),
    ("q4", "B,C", ""),
    ("q5", "B,C", "B,C"),
)
SEEN, BLANK = "mini_clevrer", "mini_clevrer_blank"


def answer(letters: str) -> str:
    return f"<think>so</think><answer>{letters}</answer>"


def dump(right: str, benchmark: str = SEEN, otherwise: str = "A") -> list[dict]:
    """Rows of a validation dump: the true letters where ``right`` names the question, else ``otherwise``."""
    return [
        {"output": answer(truth if name in right.split() else otherwise), "gts": truth, "id": name}
        | {"benchmark": benchmark}
        for name, truth, _ in QUESTIONS
    ]


def scalars(steps: int, **changes: float) -> dict[str, dict[int, float]]:
    """What verl logs in a run without token weights; ``changes`` are values of all steps, ``__`` stands for a slash."""
    values = {
        "critic/score/mean": 1.25,
        "response_length/mean": 20.0,
        "tw_grpo/group_reward_std": 0.5,
        "tw_grpo/accuracy": 0.25,
        "tw_grpo/soft_accuracy": 0.375,
        "actor/grad_norm": 0.5,
        "actor/pg_loss": 0.125,
        "timing_s/gen": 2.0,
        "timing_s/old_log_prob": 0.5,
        "timing_s/adv": 0.125,
        "timing_s/update_actor": 1.0,
        "timing_s/update_weights": 0.25,
        "timing_s/step": 4.0,
    } | {name.replace("__", "/"): value for name, value in changes.items()}
    return {name: dict.fromkeys(range(1, steps + 1), value) for name, value in values.items()}


WEIGHTED = {
    "timing_s__tw_grpo": 0.25,
    "timing_s__tw_grpo_head_pass": 0.125,
    "timing_s__tw_grpo_dump": 0.125,
    "timing_s__step": 4.5,
    "tw_grpo__weight_mean": 1.5,
}


@pytest.fixture(name="dump")
def dump_fixture():
    """``dump``: rows of a validation dump."""
    return dump


@pytest.fixture(name="scalars")
def scalars_fixture():
    """``scalars``: what verl logs."""
    return scalars


@pytest.fixture(scope="session")
def questions_file(tmp_path_factory) -> Path:
    from verl_twgrpo.data.parquet import write_parquet
    from verl_twgrpo.data.schema import Item

    items = [
        Item(
            id=name,
            source=SEEN,
            split="validation",
            question="Without the red square, what will happen?",
            options=("one", "two", "three"),
            answers=frozenset(truth.split(",")),
            video="none.mp4",
            provenance={"observed": [letter for letter in observed.split(",") if letter]},
        )
        for name, truth, observed in QUESTIONS
    ]
    return write_parquet(items, tmp_path_factory.mktemp("questions") / "validation.parquet")


@pytest.fixture
def make_study(tmp_path, questions_file):
    """Write runs, name -> (validation dumps by step, scalars), below a root with the questions; returns the root."""

    def make(runs: dict[str, tuple[dict[int, list[dict]], dict[str, dict[int, float]]]]) -> Path:
        root = tmp_path / "study"
        (root / "data").mkdir(parents=True)
        (root / "data" / "validation.parquet").write_bytes(questions_file.read_bytes())
        (root / "runs").mkdir()
        for name, (validation, logged) in runs.items():
            folder = root / "runs" / name
            (folder / "validation").mkdir(parents=True)
            for step, rows in validation.items():
                lines = "".join(json.dumps(row | {"step": step}) + "\n" for row in rows)
                (folder / "validation" / f"{step}.jsonl").write_text(lines, encoding="utf-8")
            if logged:
                _log(folder / "tensorboard", logged)
            record = {"seconds": 90, "versions": {"verl": "0.9.1"}, "overrides": ["recipe=mini_clevrer", name]}
            (folder / "finished.json").write_text(json.dumps(record), encoding="utf-8")
        return root

    return make


@pytest.fixture
def whole_study(make_study) -> Path:
    """Start model, two arms with two seeds, alpha = 0, and the blind control; the start knows two answers of six."""
    both = dump("q0 q2") + dump("q0", BLANK)
    better, best = dump("q0 q1 q2 q3") + dump("q0", BLANK), dump("q0 q1 q2 q3 q4") + dump("q0", BLANK)
    return make_study(
        {
            "start": ({0: both}, {}),
            "grpo_soft-s1": ({2: both, 4: better}, scalars(4)),
            "grpo_soft-s2": ({2: both, 4: better}, scalars(4)),
            "tw_grpo-s1": ({2: both, 4: best}, scalars(4, **WEIGHTED)),
            "tw_grpo-s2": ({2: both, 4: better}, scalars(4, **WEIGHTED)),
            "alpha_0-s1": ({4: better}, scalars(4)),
            "blind-s1": ({4: dump("q0 q1") + dump("q0 q1", BLANK)}, scalars(4)),
        }
    )


def _log(folder: Path, logged: dict[str, dict[int, float]]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    for name, values in logged.items():
        for step, value in values.items():
            writer.add_scalar(name, value, step)
    writer.close()
