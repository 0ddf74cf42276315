"""Run directories as the trainer and verl write them, with numbers that tests can predict."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

LENGTHS = (2, 4, 3)
REWARDS = (2.0, 1.5, 0.0)
TEXTS = ("<answer>A,C</answer>", "<answer>A</answer>", "<b>no</b> & answer")


@pytest.fixture(scope="session")
def schema():
    """The schema that the trainer dumps with: a reader that expects another one fails here."""
    pytest.importorskip("transfer_queue")
    from verl_twgrpo.training.dump import SCHEMA

    return SCHEMA


def dump_rows(step, group, weights=(1.0, 1.2, 1.7, 0.9), divergences=(0.0, 1.0, 5.0, 2.0)):
    """One group of three responses of 2, 4 and 3 tokens; weight and divergence are those of the position."""
    rows = []
    for number, (length, reward, text) in enumerate(zip(LENGTHS, REWARDS, TEXTS, strict=True)):
        rows.append(
            {
                "step": step,
                "group": group,
                "id": f"q_{group}",
                "ground_truth": "A,C",
                "reward": reward,
                "accuracy": float(number == 0),
                "soft_accuracy": (1.0, 0.5, 0.0)[number],
                "format": 0.0,
                "text": text,
                "token_ids": list(range(length)),
                "tokens": [f"t{number}{position}" for position in range(length)],
                "weight": list(weights[:length]),
                "divergence": list(divergences[:length]),
                "entropy": [0.25] * length,
                "log_prob": [-0.5] * length,
                "advantage": [1.0] * length,
            }
        )
    return rows


@pytest.fixture
def group_rows():
    """``group_rows(step, group)``: the rows of a dump that one group has."""
    return dump_rows


@pytest.fixture
def make_run(tmp_path, schema):
    """Write a run: dumps (step -> rows), logged scalars, rollouts (step -> rewards by group), validation answers."""

    def make(name, dumps=None, scalars=None, rollouts=None, validation=None) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for step, rows in (dumps or {}).items():
            path = folder / "tw_grpo" / f"step_{step:06d}.parquet"
            path.parent.mkdir(exist_ok=True)
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), path)
        if scalars:
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(folder / "tensorboard"))
            for metric, values in scalars.items():
                for step, value in values.items():
                    writer.add_scalar(metric, value, step)
            writer.close()
        for step, groups in (rollouts or {}).items():
            rows = [
                {"input": f"prompt of {group}", "output": "x", "gts": "A", "score": reward, "uid": f"{group}_{k}_0"}
                for group, rewards in groups.items()
                for k, reward in enumerate(rewards)
            ]
            write_lines(folder / "rollouts" / f"{step}.jsonl", rows)
        for step, answers in (validation or {}).items():
            rows = [
                {"output": answer, "gts": truth, "step": step, "id": str(k), "benchmark": benchmark}
                for k, (benchmark, truth, answer) in enumerate(answers)
            ]
            write_lines(folder / "validation" / f"{step}.jsonl", rows)
        return folder

    return make


def write_lines(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def full_run(make_run):
    """A run with everything: two steps of two groups each, validated at steps 0 and 2."""
    answers = [("clevrer", "A,C", "A"), ("clevrer", "B", "B"), ("mmvu", "D", "C")]
    return make_run(
        "full/run",
        dumps={step: [*dump_rows(step, f"u{step}"), *dump_rows(step, f"v{step}")] for step in (1, 2)},
        scalars={
            "critic/score/mean": {1: 1.0, 2: 1.25},
            "tw_grpo/group_reward_std": {1: 0.5, 2: 0.25},
            "response_length/mean": {1: 30.0, 2: 20.0},
        },
        rollouts={step: {f"u{step}": REWARDS, f"v{step}": REWARDS} for step in (1, 2)},
        validation={0: answers, 2: [*answers[:2], ("mmvu", "D", "D")]},
    )
