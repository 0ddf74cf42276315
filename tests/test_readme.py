"""README's way from annotations to a run, command by command, in processes of their own as a user starts them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from verl_twgrpo.planning.command import compose_run

ROOT = Path(__file__).resolve().parents[1]
SECTION = "## Your data, your model"
TRAINING = "verl.trainer.main_ppo"


def commands() -> list[list[str]]:
    """The words of each command of the section's first block, lines that go on joined."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition(SECTION)[2]
    block = re.search(r"\n\n((?:    .*\n)+)", section)[1]
    return [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]


def training_overrides() -> list[str]:
    (words,) = [words for words in commands() if TRAINING in words]
    return words[words.index(TRAINING) + 1 :]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Annotations and videos under the names that README gives them."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "videos").mkdir()
    for name in ("first", "second"):
        with av.open(str(folder / "videos" / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=8)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 8)
            for k in range(16):
                shade = np.full((48, 64, 3), 10 * k + len(name), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
            container.mux(stream.encode())
    for file, video in (("train.json", "first"), ("val.json", "second")):
        rows = [
            {
                "id": f"{video} {k}",
                "video": f"{video}.mp4",
                "question": "What does the boy do?",
                "options": ["(A) run", "(B) sit", "(C) eat", "(D) sing", "(E) sleep"],
                "answer": "(B)",
                "type": "TN",
            }
            for k in range(8)
        ]
        (folder / file).write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    """A processor in place of the 7B's, which nobody can download in a test."""
    from verl_twgrpo.mini_clevrer.model.checkpoint import build_processor

    folder = tmp_path_factory.mktemp("checkpoint")
    build_processor().save_pretrained(folder)
    return str(folder)


def run(words: list[str], folder: Path) -> str:
    """What the console script says; no help from this process but where the package lies."""
    script = Path(sys.executable).parent / words[0]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([script, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.slow
def test_each_command_finds_what_the_one_before_wrote(folder, checkpoint):
    for words in commands():
        if words[:2] == ["verl-twgrpo", "data"]:
            said = run([word.replace("Qwen/Qwen2.5-VL-7B-Instruct", checkpoint) for word in words], folder)
    assert "16 rows, nothing found" in said
    plan = run(["verl-twgrpo", "plan", *training_overrides()], folder)
    assert re.search(r"^run +mine, trains Qwen/Qwen2.5-VL-7B-Instruct", plan, re.M)
    assert "not there yet" not in plan


@pytest.mark.slow
def test_what_follows_the_training_reads_what_it_writes():
    config = compose_run(training_overrides())
    (training,) = [words for words in commands() if TRAINING in words]
    (evaluation,) = [words for words in commands() if words[:2] == ["verl-twgrpo", "eval"]]
    (report,) = [words for words in commands() if words[:2] == ["verl-twgrpo", "report"]]
    dump = Path(evaluation[2])
    assert dump.parent == Path(config.trainer.validation_data_dir)
    assert dump.stem == str(config.trainer.total_training_steps)
    outputs = [config.trainer.rollout_data_dir, config.algorithm.tw_grpo.dump_dir]
    outputs += [word.removeprefix("TENSORBOARD_DIR=") for word in training if word.startswith("TENSORBOARD_DIR=")]
    assert {Path(output).parent for output in outputs} == {Path(report[2])} and len(outputs) == 3
