"""Rows with a video, with an image and with text alone, of three tasks, on two ranks of verl's asynchronous trainer.

Held to a reference policy; the weights are held to their definition.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import av
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from verl_twgrpo.data.parquet import FrameLimits, read_rows, to_row
from verl_twgrpo.mini_clevrer.world import moments
from verl_twgrpo.mini_clevrer.world.render import FRAMES, SIZE

pytestmark = pytest.mark.e2e

# However groups go to two ranks, these four leave them with different kinds of rows.
KINDS = "when", "image", "text", "how many"
TASKS = {"when": "temporal_grounding", "how many": "counting"}


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
def trained(start, mixed_data):
    """Two steps of colocate_async: the second step's responses are from before the first step's update."""
    run = start(
        "trainer.v1.trainer_mode=colocate_async",
        "trainer.n_gpus_per_node=2",
        "trainer.total_training_steps=2",
        "trainer.total_epochs=3",
        "trainer.save_freq=1",
        f"data.train_files={mixed_data}",
        f"data.val_files={mixed_data}",
        "reward.reward_manager.name=video_tasks",
        "actor_rollout_ref.actor.use_kl_loss=True",
        "actor_rollout_ref.actor.optim.lr=1e-3",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8",
    )
    assert run.wait() == 0, run.tail()
    return run


def test_rows_of_every_kind_train_on_two_ranks_beside_a_reference_policy(trained):
    run = trained
    assert run.logged() == [1, 2]
    metrics = run.metrics(1)
    assert math.isfinite(metrics["actor/grad_norm"])
    # before the first update the reference is the policy
    assert metrics["actor/kl_loss"] == pytest.approx(0, abs=1e-5)
    rows = run.dump(1)
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
    assert run.orphans() == []


def plain_weights(
    model_folder: Path, prompt: list[dict], responses: list[list[int]]
) -> tuple[list[float], list[float]]:
    """D_t and weights of a group, from the text: the model in float64, a response at a time, and the reference."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "algorithm"))
    import reference
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForImageTextToText.from_pretrained(model_folder, dtype=torch.float64).eval()
    asked = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
    log_probs = []
    with torch.no_grad():
        for response in responses:
            logits_LV = model(input_ids=torch.tensor([asked + response])).logits[0]
            log_probs.append(logits_LV[len(asked) - 1 : -1].log_softmax(-1))
    divergences = reference.paper_divergence(log_probs)
    return divergences, reference.released_weights(divergences)


def test_asynchronous_weights_are_the_definition_under_the_policy_before_the_update(trained, demo, mixed_data):
    """At step 2 that is not the policy that answered."""
    (asked,) = (row["prompt"] for row in read_rows(mixed_data) if row["extra_info"]["id"].startswith("text"))
    after_one = trained.folder / "checkpoints" / "global_step_1" / "actor" / "huggingface"
    assert trained.metrics(1)["training/off_policy/trajectory_staleness/max"] == 0
    assert trained.metrics(2)["training/off_policy/trajectory_staleness/min"] == 1
    off = []
    for step, policy in ((1, demo / "model"), (2, after_one), (2, demo / "model")):
        rows = [row for row in trained.dump(step) if row["id"].startswith("text")]
        assert len(rows) == 8
        divergences, weights = plain_weights(policy, asked, [row["token_ids"] for row in rows])
        off.append(
            max(
                abs(a - b)
                for row in rows
                for name, plain in (("divergence", divergences), ("weight", weights))
                for a, b in zip(row[name], plain, strict=False)
            )
        )
    assert off[0] < 1e-4 and off[1] < 1e-4, off
    # and the policy that answered would have given other weights
    assert off[2] > 10 * off[1], off
