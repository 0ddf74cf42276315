"""From ten annotated questions to a planned run, by the commands that a user types, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from verl_twgrpo import cli


def typed(*words, cwd) -> str:
    """Run the command line as a user would; what it printed."""
    command = [sys.executable, "-m", "verl_twgrpo.cli", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_path_from_annotations_to_a_plan_runs_step_by_step(checkpoint, make_video, tmp_path):
    for split, count in (("train", 8), ("validation", 2)):
        rows = []
        for k in range(count):
            make_video(f"own/{split}/{k}.mp4", frames=8, shade=20 * k + 7 * (split == "validation"))
            rows.append({"question": "what did the boy eat", "options": ["an apple", "a pear", "soup"]})
            rows[-1] |= {"answer": "ABC"[k % 3], "video": f"{split}/{k}.mp4"}
        path = tmp_path / f"own/{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        words = ("--annotations", path, "--split", split, "--nframes", 4, "--out", "data")
        assert f"{count} items" in typed("data", "convert", "--source", "jsonl", *words, cwd=tmp_path)
    assert "8 items" in typed(
        "data", "invert", "data/jsonl-train.parquet", "--out", "data/inverted.parquet", cwd=tmp_path
    )
    files = ("data/inverted.parquet", "data/jsonl-validation.parquet")
    assert "10 videos, 10 decoded" in typed("data", "frames", *files, "--cache", "frames", cwd=tmp_path)
    checked = typed(
        "data", "check", files[0], "--validation", files[1], "--cache", "frames", "--model", checkpoint, cwd=tmp_path
    )
    assert "10 rows, nothing found" in checked
    words = ("--data", files[0], "--validation", files[1], "--cache", "frames", "--model", checkpoint, "--gpus", 0)
    planned = typed("init", *words, "--name", "mine", cwd=tmp_path)
    recipe = tmp_path / "runs/recipe/mine.yaml"
    assert "recipe=mine\n" in planned and str(recipe) in planned and "not there yet" not in planned
    written = yaml.safe_load(recipe.read_text())
    assert written["data"]["train_batch_size"] == 8 and written["trainer"]["total_training_steps"] == 1
    assert written["data"]["max_prompt_length"] % 64 == 0
    assert written["actor_rollout_ref"]["rollout"]["max_model_len"] == written["data"]["max_prompt_length"] + 96
    line = next(line for line in planned.splitlines() if line.startswith("plan: "))
    again = typed("plan", *line.split("plan ")[1].replace("'", "").split(), cwd=tmp_path)
    assert "8 prompts x 8 responses" in again


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "nosuch.parquet", "--model", "x/y", "--gpus", "2"], "--data nosuch.parquet: no such file"),
        (["--data", ".", "--model", "x/y", "--gpus", "-1"], "--gpus -1: need 0 or more"),
        (["--data", ".", "--model", "x/y", "--gpus", "1", "--name", "../x"], "--name ../x: need letters"),
    ],
)
def test_init_says_what_it_cannot_take(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", *words]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "runs").exists()
