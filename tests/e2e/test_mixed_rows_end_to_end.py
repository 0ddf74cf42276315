"""Rows with a video, with an image and with text alone, of three tasks, on two ranks, held to a reference policy.

The two questions about videos, when objects meet and how often, come again in every step: what they earn has to rise.
Each has half as many rollouts more on shuffled frames, for the temporal bonus.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import av
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_twgrpo.data.parquet import FrameLimits, read_rows, to_row
from verl_twgrpo.mini_clevrer.world import moments
from verl_twgrpo.mini_clevrer.world.render import FRAMES, SIZE
from verl_twgrpo.training.settings import SEEDED_SHUFFLING_LOOP

pytestmark = pytest.mark.e2e

# However groups go to two ranks, these four leave them with different kinds of rows.
KINDS = "when", "image", "text", "how many"
TASKS = {"when": "temporal_grounding", "how many": "counting"}


# what the first ones earn is held against the second half
STEPS, FIRST = 10, 2


@pytest.fixture(scope="module")
def tasks_demo(tmp_path_factory) -> Path:
    """Questions of other tasks and a checkpoint that answers them in form, most often wrongly."""
    folder = tmp_path_factory.mktemp("tasks")
    words = ["demo", "prepare", "--tasks", "--out", str(folder), "--train=4", "--validation=4", "--moment-steps=160"]
    subprocess.run([sys.executable, "-m", "verl_twgrpo.cli", *words], check=True)
    return folder


@pytest.fixture(scope="module")
def mixed_data(demo, tmp_path_factory) -> Path:
    """Two questions of other tasks with their videos, and two of the demo's: about a picture, and about nothing."""
    folder = tmp_path_factory.mktemp("mixed")
    limits = FrameLimits(nframes=FRAMES, min_pixels=SIZE * SIZE, max_pixels=SIZE * SIZE)
    when, how_many = (to_row(item, 0, limits) for item in moments.generate(folder, "train", 2, seed=0))
    demos = read_rows(demo / "data" / "train.parquet")
    made = []
    for kind, row in zip(KINDS, (when, *demos[:2], how_many), strict=True):
        text = row["prompt"][0]["content"].removeprefix("<video>")
        videos, images = [], []
        if kind in TASKS:
            text, videos = f"<video>{text}", row["videos"]
        if kind == "image":
            picture = folder / "first_frame.png"
            with av.open(row["videos"][0]["video"]) as container:
                next(container.decode(video=0)).to_image().resize((56, 56)).save(picture)
            text, images = f"<image>{text}", [{"image": str(picture)}]
        info = {**row["extra_info"], "id": f"{kind}-{row['extra_info']['id']}"}
        prompt = [{"role": "user", "content": text}]
        made.append({**row, "prompt": prompt, "videos": videos, "images": images, "extra_info": info})
    pq.write_table(pa.Table.from_pylist(made), folder / "train.parquet")
    return folder / "train.parquet"


@pytest.fixture(scope="module")
def trained(start, mixed_data, tasks_demo):
    run = start(
        "trainer.n_gpus_per_node=2",
        f"trainer.total_training_steps={STEPS}",
        f"trainer.total_epochs={STEPS}",
        f"data.train_files={mixed_data}",
        f"data.val_files={mixed_data}",
        f"actor_rollout_ref.model.path={tasks_demo}/model",
        "reward.reward_manager.name=video_tasks",
        "actor_rollout_ref.actor.use_kl_loss=True",
        "actor_rollout_ref.actor.optim.lr=5e-4",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8",
        "++algorithm.tw_grpo.temporal_bonus={}",
        # the same seeds give the same rollouts, as long as nothing else differs
        f"actor_rollout_ref.rollout.agent.default_agent_loop={SEEDED_SHUFFLING_LOOP}",
        "actor_rollout_ref.rollout.enable_chunked_prefill=false",
        "actor_rollout_ref.rollout.max_num_batched_tokens=8192",
    )
    assert run.wait() == 0, run.tail()
    return run


def test_rows_of_every_kind_train_on_two_ranks_beside_a_reference_policy(trained):
    assert trained.logged() == list(range(1, STEPS + 1))
    metrics = trained.metrics(1)
    assert math.isfinite(metrics["actor/grad_norm"])
    # before the first update the reference is the policy
    assert metrics["actor/kl_loss"] == pytest.approx(0, abs=1e-5)
    rows = trained.dump(1)
    per_kind = {kind: [row for row in rows if row["id"].startswith(kind)] for kind in KINDS}
    assert {kind: len(found) for kind, found in per_kind.items()} == dict.fromkeys(KINDS, 8)
    for kind, found in per_kind.items():
        assert {row["task"] for row in found} == {TASKS.get(kind, "multiple_choice")}
    # every task has its own numbers, in the dump and in what is logged
    assert all("recall_0.5" in dict(row["scores"]) for row in per_kind["when"])
    for name in ("temporal_grounding/iou", "counting/accuracy", "multiple_choice/soft_accuracy"):
        assert 0 <= metrics[f"reward/mini_clevrer/{name}"] <= 1
    for row in rows:
        assert len(row["weight"]) == len(row["token_ids"]) > 0
        assert all(1.0 <= weight <= 1.7 + 1e-6 for weight in row["weight"])
    # what the rollout and the actor see of each kind is the same
    assert metrics["training/rollout_probs_diff_max"] < 5e-3
    assert trained.orphans() == []


def test_grounding_and_counting_earn_more_at_the_end(trained):
    earned = {}
    for name in ("temporal_grounding", "counting"):
        steps = [trained.metrics(step)[f"reward/mini_clevrer/{name}/score"] for step in range(1, STEPS + 1)]
        earned[name] = [sum(part) / len(part) for part in (steps[:FIRST], steps[STEPS // 2 :])]
    before, after = map(sum, zip(*earned.values(), strict=True))
    assert after > before, f"score by task, first {FIRST} and last {STEPS - STEPS // 2} of {STEPS} steps: {earned}"


def test_shuffled_rollouts_of_videos_are_scored_and_not_trained_on(trained):
    for step in (1, STEPS):
        metrics = trained.metrics(step)
        assert 0 <= metrics["t_grpo/accuracy_ordered"] <= 1
        assert 0 <= metrics["t_grpo/accuracy_shuffled"] <= 1
        assert 0 <= metrics["t_grpo/bonus_mean"] <= 0.3
        assert metrics["t_grpo/passed"] in (0, 0.5, 1)  # of the two prompts with a video
        answered = [json.loads(line) for line in (trained.folder / "rollouts" / f"{step}.jsonl").open()]
        assert len(answered) == len(trained.dump(step)) == 32
