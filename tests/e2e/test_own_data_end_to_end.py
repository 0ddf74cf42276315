"""From a user's own questions to a report, command by command, each finding what the one before wrote."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from verl_twgrpo.data.parquet import read_rows
from verl_twgrpo.training.exit_summary import last_checkpoint

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def own(demo, tmp_path_factory) -> Path:
    """A folder with own/train.jsonl, own/validation.jsonl and their videos: a few of the demo's questions."""
    folder = tmp_path_factory.mktemp("own")
    for split, count in (("train", 8), ("validation", 5)):
        (folder / "own" / split).mkdir(parents=True)
        lines = []
        for row in read_rows(demo / "data" / f"{split}.parquet")[:count]:
            video = shutil.copy(row["videos"][0]["video"], folder / "own" / split)
            line = {
                "video": str(Path(video).relative_to(folder / "own")),
                "answer": row["reward_model"]["ground_truth"],
            }
            lines.append(json.dumps({name: row["extra_info"][name] for name in ("question", "options")} | line))
        (folder / "own" / f"{split}.jsonl").write_text("\n".join(lines))
    return folder


def say(words: str, folder: Path, codes: tuple[int, ...] = (0,)) -> str:
    """What the console script says, started in the user's folder."""
    command, *arguments = shlex.split(words)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [Path(sys.executable).parent / command, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode in codes, done.stdout + done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done.stdout


def test_each_command_finds_what_the_one_before_wrote(own, demo, launch):
    convert = "verl-twgrpo data convert --source jsonl --out data --nframes 8 --annotations own/"
    say(convert + "train.jsonl", own)
    say(convert + "validation.jsonl --split validation", own)
    say("verl-twgrpo data invert data/jsonl-train.parquet --out data/inverted.parquet", own)
    data = "data/inverted.parquet", "data/jsonl-validation.parquet"
    assert "13 videos, 13 decoded, 0 cached, 0 failed" in say(
        f"verl-twgrpo data frames {shlex.join(data)} --cache c", own
    )
    check = f"verl-twgrpo data check {data[0]} --validation {data[1]} --cache c --model {demo}/model"
    assert "13 rows, nothing found" in say(check, own)

    parity = f"verl-twgrpo parity {demo}/model --data {data[0]} --row 0 --json parity.json"
    lines = say(parity, own, codes=(0, 1)).splitlines()
    found = json.loads((own / "parity.json").read_text())
    # a video of tiny frames and random weights: all but its time's last digits agrees
    assert [line for line in found["differences"] if not line.startswith("time of video")] == []
    assert found["prompt_ids_equal"] and found["position_ids_equal"] and len(lines) < 24

    options = f"--data {data[0]} --validation {data[1]} --cache c --model {demo}/model --gpus 0 --name mine"
    said = say(f"verl-twgrpo init {options}", own)
    plan, train = (
        next(line for line in said.splitlines() if line.startswith(f"{what}: ")) for what in ("plan", "train")
    )
    assert "note:" not in say(plan.removeprefix("plan: "), own)
    python, *words = shlex.split(train.removeprefix("train: "))
    run = launch([sys.executable, *words], own, {"PYTHONPATH": str(ROOT)}, cwd=own)
    assert run.wait() == 0, run.tail()
    assert run.logged()[-1] == 1

    folder = own / "runs" / "mine" / "run"
    assert last_checkpoint(folder / "checkpoints") == folder / "checkpoints" / "global_step_1"
    rows = [json.loads(line) for line in (folder / "validation" / "1.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == 5
    assert "jsonl" in say(f"verl-twgrpo eval {folder}/validation/1.jsonl --json figures.json", own)
    figures = json.loads((own / "figures.json").read_text())["scores"]["jsonl"]["all"]
    assert figures["n"] == 5
    assert figures["strict"] == pytest.approx(sum(row["accuracy"] for row in rows) / len(rows))
    assert figures["soft"] == pytest.approx(sum(row["soft_accuracy"] for row in rows) / len(rows))
    assert figures["strict_low"] <= figures["strict"] <= figures["strict_high"]
    said = say(f"verl-twgrpo report {folder} --out report", own)
    assert (own / "report" / "README.md").is_file()
    assert not [line for line in said.splitlines() if line.startswith("missing:") and "/*" in line]
    assert run.orphans() == []
