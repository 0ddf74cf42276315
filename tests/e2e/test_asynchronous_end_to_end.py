"""Two steps of each of verl's asynchronous trainers: the weights are those of the policy before the step's updates.

Prompts are text alone, so that the definition needs no more than the model: a forward pass in float64 per response.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from verl_twgrpo.data.parquet import read_rows

sys.path.insert(0, str(Path(__file__).parents[1] / "algorithm"))
import reference  # noqa: E402 - the plain definitions that the unit tests use

pytestmark = pytest.mark.e2e

PROMPTS = 4


@pytest.fixture(scope="module")
def questions(demo, tmp_path_factory) -> Path:
    """The demo's first questions without their videos."""
    rows = read_rows(demo / "data" / "train.parquet")[:PROMPTS]
    for row in rows:
        row["prompt"][0]["content"] = row["prompt"][0]["content"].removeprefix("<video>")
        row["videos"] = []
    file = tmp_path_factory.mktemp("questions") / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


@pytest.fixture
def train(start, questions):
    """Two steps in a mode of the trainer, from each of which a checkpoint stays."""

    def train(mode: str, *overrides: str):
        run = start(
            f"trainer.v1.trainer_mode={mode}",
            "trainer.total_training_steps=2",
            "trainer.total_epochs=8",  # rollouts are ahead of the steps
            "trainer.save_freq=1",
            "actor_rollout_ref.actor.optim.lr=1e-3",
            f"data.train_files={questions}",
            f"data.val_files={questions}",
            *overrides,
            environment={"PYTHONPATH": str(Path(__file__).parent)},
        )
        assert run.wait() == 0, run.tail()
        assert run.logged() == [1, 2]
        assert run.orphans() == []
        return run

    return train


def after_step(run, step: int) -> Path:
    return run.folder / "checkpoints" / f"global_step_{step}" / "actor" / "huggingface"


def largest_gap(run, step: int, questions: Path, policy: Path) -> float:
    """How far D_t and the weights of a step's dump are from their definitions under a policy."""
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(policy)
    model = AutoModelForImageTextToText.from_pretrained(policy, dtype=torch.float64).eval()
    asked = {row["extra_info"]["id"]: row["prompt"] for row in read_rows(questions)}
    groups: dict[str, list[dict]] = {}
    for row in run.dump(step):
        groups.setdefault(row["group"], []).append(row)
    assert len(groups) == PROMPTS
    gaps = []
    for rows in groups.values():
        assert len(rows) == 8
        prompt = tokenizer.apply_chat_template(asked[rows[0]["id"]], add_generation_prompt=True, return_dict=False)
        log_probs = []
        with torch.no_grad():
            for row in rows:
                logits_LV = model(input_ids=torch.tensor([prompt + row["token_ids"]])).logits[0]
                log_probs.append(logits_LV[len(prompt) - 1 : -1].log_softmax(-1))
        divergences = reference.paper_divergence(log_probs)
        plain = {"divergence": divergences, "weight": reference.released_weights(divergences)}
        for row in rows:
            for name, values in plain.items():
                gaps += [abs(a - b) for a, b in zip(row[name], values, strict=False)]
    return max(gaps)


def test_colocated_rollouts_that_are_a_step_old_and_two_epochs_of_two_updates(train, demo, questions):
    run = train(
        "colocate_async",
        "algorithm.tw_grpo.placement=eq6",
        "actor_rollout_ref.actor.ppo_epochs=2",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    )
    # ratios move within a step; under eq6 the weights are the loss's business, not the advantages'
    assert abs(run.metrics(1)["actor/ppo_kl"]) > 1e-5
    for row in run.dump(1):
        assert max(row["advantage"]) - min(row["advantage"]) < 1e-6
    assert run.metrics(1)["training/off_policy/trajectory_staleness/max"] == 0
    assert run.metrics(2)["training/off_policy/trajectory_staleness/min"] == 1
    start, answered = demo / "model", demo / "model"
    assert largest_gap(run, 1, questions, start) < 1e-4
    now = largest_gap(run, 2, questions, after_step(run, 1))
    assert now < 1e-4
    # the policy that answered would have given other weights
    assert largest_gap(run, 2, questions, answered) > 10 * now


def test_rollouts_on_devices_of_their_own_and_two_updates_per_step(train, demo, questions, tmp_path):
    engine = "actor_rollout_ref.rollout.checkpoint_engine"
    run = train(
        "separate_async",
        "trainer.v1.separate_async.parameter_sync_step=2",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        "actor_rollout_ref.rollout.nnodes=1",
        "actor_rollout_ref.rollout.n_gpus_per_node=1",
        "ray_kwargs.ray_init.num_gpus=2",
        f"{engine}.backend=file",
        f"{engine}.custom_backend_module=file_checkpoint_engine",
        f"+{engine}.engine_kwargs.file.folder={tmp_path}",
    )
    # both parts of a step have the weights of the policy at its beginning, not of the update between them
    assert largest_gap(run, 1, questions, demo / "model") < 1e-4
    assert largest_gap(run, 2, questions, after_step(run, 1)) < 1e-4
