"""The scripts beside the recipes do what the README says of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from verl_twgrpo.data.parquet import FrameLimits, read_parquet, read_rows, write_parquet
from verl_twgrpo.data.schema import Item

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recorded(tmp_path):
    """Run a script in a folder like the checkout, with commands that only say how they were called."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")

    def run(script, *args, fail=(), **environment):
        for name in ("python", "verl-twgrpo", "ray", "srun", "scontrol", "sleep"):
            says = {
                "srun": 'case "$*" in *hostname*) echo 10.0.0.7 fe80::1;; esac',
                "scontrol": "printf 'node1\\nnode2\\n'",
            }.get(name, "")
            log = f'echo "{name} $* RAY_ADDRESS=$RAY_ADDRESS TENSORBOARD_DIR=$TENSORBOARD_DIR" >> {tmp_path}/log'
            command = commands / name
            command.write_text(f"#!/usr/bin/env bash\n{log}\n{says}\nexit {int(name in fail)}\n")
            command.chmod(0o755)
        done = subprocess.run(
            [f"recipes/{script}", *args],
            cwd=tmp_path,
            env={"PATH": f"{commands}:/usr/bin:/bin", "RAY_ADDRESS": "", **environment},
            capture_output=True,
            text=True,
        )
        return done, (tmp_path / "log").read_text().splitlines()

    return run


def test_run_plans_and_then_starts(recorded):
    done, (plan, start) = recorded("run.sh", "evaluate", "mine", "benchmark=a/b")
    assert done.returncode == 0, done.stderr
    overrides = "recipe=evaluate trainer.experiment_name=mine benchmark=a/b"
    assert plan.startswith(f"verl-twgrpo plan {overrides} ")
    assert start.startswith(f"python -m verl.trainer.main_ppo {overrides} ")
    assert start.endswith("TENSORBOARD_DIR=outputs/mine/tensorboard")


def test_run_starts_nothing_that_the_plan_refuses(recorded):
    done, log = recorded("run.sh", "evaluate", "mine", fail=("verl-twgrpo",))
    assert done.returncode == 1
    assert [line.split()[0] for line in log] == ["verl-twgrpo"]


def test_run_keeps_a_folder_of_scalars_that_was_set(recorded):
    _, (_, start) = recorded("run.sh", "evaluate", "mine", TENSORBOARD_DIR="/logs")
    assert start.endswith("TENSORBOARD_DIR=/logs")


def test_slurm_starts_ray_on_every_node_and_the_run_on_the_first(recorded, tmp_path):
    job = {
        "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_PER_NODE": "4", "SLURM_CPUS_PER_TASK": "32",
        "SLURM_JOB_NODELIST": "node[1-2]",
    }  # fmt: skip
    done, log = recorded("slurm.sh", "qwen2_5_vl_7b_clevrer", "two", "data.seed=1", **job)
    assert done.returncode == 0, done.stderr
    (head,) = [line for line in log if "--head" in line]
    assert "--nodelist=node1" in head and "--node-ip-address=10.0.0.7 --port=6379" in head
    assert "ray start --num-cpus=32 --num-gpus=4" in head
    (worker,) = [line for line in log if "--address=10.0.0.7:6379" in line]
    assert "--nodes=1 --ntasks=1 --exclude=node1" in worker
    (run,) = [line for line in log if "recipes/run.sh" in line]
    assert "--nodelist=node1" in run and "RAY_ADDRESS=10.0.0.7:6379" in run
    assert "recipes/run.sh qwen2_5_vl_7b_clevrer two " in run
    assert "trainer.nnodes=2 trainer.n_gpus_per_node=4 data.train_batch_size=8 data.seed=1" in run
    assert f"data_dir={tmp_path}/data out_dir={tmp_path}/outputs" in run
    assert all(line.endswith(f"TENSORBOARD_DIR={tmp_path}/outputs/two/tensorboard") for line in (head, worker, run))


def test_single_answer_keeps_the_questions_with_one_true_option(tmp_path):
    answers = ("A", "AC", "B")
    items = [
        Item(str(k), "clevrer", "train", "What?", ("this", "that", "it"), frozenset(letters), "a.mp4")
        for k, letters in enumerate(answers)
    ]
    file = write_parquet(items, tmp_path / "all.parquet", limits=FrameLimits(nframes=10))
    command = [sys.executable, str(ROOT / "recipes" / "single_answer.py"), str(file), str(tmp_path / "single.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "2 of 3 questions" in done.stdout
    assert [item.id for item in read_parquet(tmp_path / "single.parquet")] == ["0", "2"]
    rows = read_rows(tmp_path / "single.parquet")
    assert all("(select one letter)" in row["prompt"][0]["content"] for row in rows)
    assert all(row["videos"][0]["nframes"] == 10 for row in rows)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode != 0 and "FileExistsError" in again.stderr
