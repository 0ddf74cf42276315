"""A step of the trainer from old log-probs to weighted advantages, through verl's own methods, without Ray."""

from __future__ import annotations

import math

import pyarrow.parquet as pq
import pytest
import torch
import verl.trainer.ppo.core_algos  # noqa: F401 - first: importing it loads training.losses

from verl_twgrpo.algorithm import group_normalised_advantage, token_weights
from verl_twgrpo.report.reading import read_run, read_token_group
from verl_twgrpo.training import dump
from verl_twgrpo.training.losses import WEIGHTS_FIELD

REWARDS = [1.0, 0.0, 0.5, 0.0, 1.0, 1.0, 0.0]


def constant_workers(batch, divergence):
    """Workers that give each row the first tokens of its group's divergence, and plain log-probs and entropies."""

    def whole(values):
        """By token of prompt and response, one place to the left of the token it is about."""
        rows = []
        for prompt, value in zip(batch.prompts, values, strict=True):
            rows.append(torch.cat([torch.zeros(len(prompt) - 1), value, torch.zeros(1)]))
        return torch.nested.as_nested_tensor(rows, layout=torch.jagged)

    def infer(extra_info):
        lengths = [len(response) for response in batch.responses]
        return {
            "log_probs": whole([torch.full((n,), -1.0) for n in lengths]),
            "entropy": whole([torch.linspace(0, 1, n) for n in lengths]),
            "divergence": whole([divergence[uid][:n] for uid, n in zip(batch.uids, lengths, strict=True)]),
        }

    return infer


@pytest.fixture
def divergence():
    generator = torch.Generator().manual_seed(3)
    return {uid: 2 * torch.rand(9, generator=generator) for uid in ("a", "b", "c", "pad")}


@pytest.fixture
def step(fake_step, ragged_batch, divergence):
    return fake_step(ragged_batch, constant_workers(ragged_batch, divergence), REWARDS)


def rows_of(batch, uid):
    return [row for row, u in enumerate(batch.uids) if u == uid]


@pytest.mark.parametrize("placement", ["outside", "eq6"])
def test_every_token_gets_the_weight_of_its_position_in_its_group(step, ragged_batch, divergence, placement):
    metrics = step.run(step.trainer(placement=placement))
    advantages = group_normalised_advantage(torch.tensor(REWARDS), ragged_batch.uids, eps=0.0)
    for uid in ("a", "b", "c"):
        rows = rows_of(ragged_batch, uid)
        lengths = [len(ragged_batch.responses[row]) for row in rows]
        weights_T = token_weights(divergence[uid][: max(lengths)], lengths)
        for row, length in zip(rows, lengths, strict=True):
            assert torch.equal(step.column(WEIGHTS_FIELD)[row], weights_T[:length])
            expected = advantages[row] * (weights_T[:length] if placement == "outside" else torch.ones(length))
            torch.testing.assert_close(step.column("advantages")[row], expected, rtol=1e-6, atol=0)
    assert step.column(WEIGHTS_FIELD)[ragged_batch.padding.index(True)].tolist() == [1.0]
    assert metrics["tw_grpo/weight_max"] == pytest.approx(1.7)
    assert metrics["tw_grpo/nan_tokens"] == 0
    assert metrics["tw_grpo/degenerate_groups"] == 0


@pytest.mark.parametrize("kind", ["jsd", "released", "live"])
def test_from_the_engine_to_the_advantages_by_the_definition(engine_step, ragged_batch, kind):
    metrics = engine_step.run(engine_step.trainer(divergence=kind))
    entropies = engine_step.column("entropy")
    for uid in ("a", "b", "c"):
        rows = rows_of(ragged_batch, uid)
        lengths = [len(ragged_batch.responses[row]) for row in rows]
        divergences = [engine_step.queue.rows[engine_step.meta.keys[row]]["divergence"] for row in rows]
        longest = max(range(len(rows)), key=lambda k: lengths[k])
        divergence_T = divergences[longest][-lengths[longest] - 1 : -1]
        expected_T = token_weights(divergence_T, lengths, kind=kind, vocabulary_size=97)
        for row, length in zip(rows, lengths, strict=True):
            assert torch.equal(engine_step.column(WEIGHTS_FIELD)[row], expected_T[:length])
            assert entropies[row].shape == (length,) and (entropies[row] > 0).all()
    assert engine_step.column(WEIGHTS_FIELD)[rows_of(ragged_batch, "a")[1]].max() > 1.05
    assert metrics["actor/entropy"] > 0


@pytest.mark.slow
def test_rows_without_a_video_weigh_1_after_a_real_extra_pass(engine_step):
    metrics = engine_step.run(engine_step.trainer(weighting="video_contrast", settings={"view": "shuffled"}))
    for row, weights in enumerate(engine_step.column(WEIGHTS_FIELD)):
        assert (weights == 1).all()
        torch.testing.assert_close(
            engine_step.column("log_probs_shuffled")[row], engine_step.column("old_log_probs")[row], rtol=0, atol=1e-6
        )
    assert metrics["tw_grpo/degenerate_groups"] == 1


def test_alpha_0_runs_no_weights_and_leaves_the_advantages(step):
    metrics = step.run(step.trainer(alpha=0.0))
    assert WEIGHTS_FIELD not in step.queue.rows[step.meta.keys[0]]
    assert "tw_grpo/weight_mean" not in metrics


def test_tokens_of_a_tool_neither_weigh_nor_set_the_range(fake_step, ragged_batch, divergence):
    """Multi-turn: in every response of group a, tokens 2 and 3 come from a tool; their divergence is far out."""
    masks = [
        torch.full_like(r, 0 if pad else 1)
        for r, pad in zip(*(ragged_batch.responses, ragged_batch.padding), strict=True)
    ]
    divergence["a"][2:4] = torch.tensor([50.0, 90.0])
    rows = rows_of(ragged_batch, "a")
    for row in rows:
        masks[row][2:4] = 0
    step = fake_step(ragged_batch, constant_workers(ragged_batch, divergence), REWARDS, masks=masks)
    step.run(step.trainer())
    longest = max(rows, key=lambda row: len(masks[row]))
    own = [t for t in range(len(masks[longest])) if t not in (2, 3)]
    values = divergence["a"][own]
    expected = torch.ones(len(masks[longest]))
    expected[own] = 1 + 0.7 * (values - values.min()) / (values.max() - values.min())
    torch.testing.assert_close(step.column(WEIGHTS_FIELD)[longest], expected)
    assert expected.max() == pytest.approx(1.7)


def test_of_a_rollout_with_several_outputs_the_last_one_counts(fake_step, ragged_batch, divergence):
    """As verl's own estimator grpo has it: advantages among last outputs, and the others get their rollout's."""
    keys = ["a_0_0", "b_0_0", "a_0_1", "pad_0_0", "c_0_0", "b_1_0", "a_1_0"]
    step = fake_step(ragged_batch, constant_workers(ragged_batch, divergence), REWARDS, keys=keys)
    ours = step.trainer()
    step.run(ours)
    weights, advantages = step.column(WEIGHTS_FIELD), step.column("advantages")
    assert torch.equal(weights[0], torch.ones(6))
    lengths = [4, 8]
    expected_T = token_weights(divergence["a"][:8], lengths)
    assert torch.equal(weights[2], expected_T[:4]) and torch.equal(weights[6], expected_T)
    assert {group.uid: group.rows for group in ours._groups}["a"] == [2, 6]
    stock = step.trainer(alpha=0.0)
    stock.config.algorithm.adv_estimator = "grpo"
    step.run(stock)
    for row, of_grpo in enumerate(step.column("advantages")):
        if ragged_batch.uids[row] in ("c", "pad"):
            continue  # verl's grpo trains on the bare reward of a response that is alone; tw_grpo on nothing
        torch.testing.assert_close(advantages[row], of_grpo * weights[row], rtol=1e-4, atol=1e-5)


def test_what_is_not_a_number_is_counted_and_weighs_1(fake_step, ragged_batch, divergence):
    divergence["a"][4] = math.nan
    divergence["b"][:] = 0.25
    step = fake_step(ragged_batch, constant_workers(ragged_batch, divergence), REWARDS)
    metrics = step.run(step.trainer())
    in_reach = sum(len(ragged_batch.responses[row]) > 4 for row in rows_of(ragged_batch, "a"))
    assert metrics["tw_grpo/nan_tokens"] == in_reach > 0
    assert metrics["tw_grpo/degenerate_groups"] == pytest.approx(1 / 3)  # b alone
    assert all(
        (weights == 1).all() for row in rows_of(ragged_batch, "a") for weights in [step.column(WEIGHTS_FIELD)[row]]
    )


# ---- the dump


def test_the_dump_of_a_step_is_what_the_report_reads(step, ragged_batch, tmp_path):
    step.run(step.trainer(dump_dir=str(tmp_path / "tw_grpo")))
    run = read_run(tmp_path, "r")
    assert [group.uid for group in run.groups] == ["a", "b", "c"]
    shown = read_token_group(run, run.groups[0])
    row = rows_of(ragged_batch, "a")[2]
    last = shown.responses[2]
    assert (shown.step, shown.id, shown.ground_truth) == (12, "qa", "A")
    assert last.tokens == [f"<{token}>" for token in ragged_batch.responses[row].tolist()]
    assert last.weight == pytest.approx(step.column(WEIGHTS_FIELD)[row].tolist())
    assert last.entropy == pytest.approx(torch.linspace(0, 1, len(last.tokens)).tolist())
    assert last.reward == REWARDS[row]


def test_batches_of_one_step_share_its_file(step, tmp_path):
    """verl's parameter_sync_step above 1: several batches before global_steps moves on."""
    trainer = step.trainer(dump_dir=str(tmp_path))
    for trigger in (0, 1):
        trainer.local_trigger_step = trigger
        step.run(trainer)
    (path,) = tmp_path.glob("*")
    assert path.name == "step_000012.parquet"
    assert pq.read_table(path)["group"].to_pylist() == ["a", "a", "a", "b", "b", "c"] * 2
    trainer.local_trigger_step = 0  # the step again, after a resume
    step.run(trainer)
    assert len(pq.read_table(path)) == 6


def test_a_dump_that_cannot_be_written_is_said_once_and_training_goes_on(step, tmp_path, monkeypatch, caplog):
    def full(table, part, **kwargs):
        part.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dump.pq, "write_table", full)
    trainer = step.trainer(dump_dir=str(tmp_path))
    step.run(trainer)
    step.run(trainer)
    (record,) = [record for record in caplog.records if "dump_dir" in record.getMessage()]
    assert "step_000012.parquet could not be written ([Errno 28] No space left on device" in record.getMessage()
    assert list(tmp_path.iterdir()) == []


def test_what_is_stored_is_among_the_fields_that_workers_are_sent(monkeypatch):
    from transfer_queue import KVBatchMeta

    from verl_twgrpo.training import trainer_mixin as trainer

    monkeypatch.setattr(trainer.tq, "kv_batch_put", lambda **_: None)
    batch = KVBatchMeta(keys=["a_0_0"], tags=[{}], fields=["advantages"])
    trainer._store(batch, trainer._nested({"advantages": [torch.ones(2)], WEIGHTS_FIELD: [torch.ones(2)]}))
    assert batch.fields == ["advantages", WEIGHTS_FIELD]


# ---- advantages of groups without spread, and by task


def test_anchors_give_one_sided_groups_a_gradient_and_leave_padding(fake_step, ragged_batch, divergence):
    rewards = [2.0, 0.5, 2.0, 2.0, 0.0, 0.5, 2.0]  # group a is right throughout, b and c wrong
    step = fake_step(ragged_batch, constant_workers(ragged_batch, divergence), rewards)
    for row, key in enumerate(step.meta.keys):
        step.queue.rows[key]["extra_fields"] = {"reward_extra_info": {"accuracy": float(rewards[row] == 2.0)}}
    step.run(step.trainer(alpha=0.0, anchors={}))
    of_row = [values[0].item() for values in step.column("advantages")]
    virtual = (2.0 - 1.875) / (torch.tensor([2.0, 2.0, 2.0, 1.5]).std().item() + 1e-4)
    assert [of_row[row] for row in rows_of(ragged_batch, "a")] == pytest.approx([0.0625 * virtual] * 3, rel=1e-5)
    assert all(of_row[row] < 0 for uid in "bc" for row in rows_of(ragged_batch, uid))
    assert of_row[ragged_batch.padding.index(True)] == 0


def test_the_averages_of_a_task_are_saved_and_resumed(step, ragged_batch, tmp_path, monkeypatch, caplog):
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    saved_first = []
    monkeypatch.setattr(
        PPOTrainerSync, "_save_checkpoint", lambda self: saved_first.append(list(tmp_path.rglob("*.json")))
    )
    monkeypatch.setattr(PPOTrainerSync, "_load_checkpoint", lambda self: None)
    trainer = step.trainer(alpha=0.0, std="task", std_decay=0.5)
    trainer.config.trainer = {"default_local_dir": str(tmp_path), "resume_mode": "auto", "resume_from_path": None}
    step.run(trainer)
    trainer._save_checkpoint()
    assert [path.name for path in saved_first[0]] == ["tw_grpo.json"]  # before verl says that the step is whole
    own = [reward for reward, padding in zip(REWARDS, ragged_batch.padding, strict=True) if not padding]
    assert trainer._moments.state[""][0] == pytest.approx(sum(own) / len(own))
    resumed = step.trainer(alpha=0.0, std="task", std_decay=0.5)
    resumed.config.trainer = trainer.config.trainer
    resumed._load_checkpoint()
    assert resumed._moments.state == trainer._moments.state
    resumed.config.trainer.default_local_dir = str(tmp_path / "elsewhere")
    resumed._load_checkpoint()
    assert "averages of rewards start anew" in caplog.text


def test_one_task_of_one_step_is_divided_by_its_deviation(step, ragged_batch):
    step.run(step.trainer(alpha=0.0, std="task"))
    own = torch.tensor([r for r, padding in zip(REWARDS, ragged_batch.padding, strict=True) if not padding])
    rows = rows_of(ragged_batch, "a")
    rewards = torch.tensor([REWARDS[row] for row in rows])
    expected = (rewards - rewards.mean()) / own.std(correction=0)
    got = torch.tensor([step.column("advantages")[row][0] for row in rows])
    torch.testing.assert_close(got, expected)


# ---- columns from text and data


def test_the_oracle_weighs_the_tokens_that_the_row_names(step, ragged_batch, tmp_path):
    """The stand-in tokenizer writes token 17 as <17>; group a's rows name one token of the first response."""
    rows = rows_of(ragged_batch, "a")
    first = ragged_batch.responses[rows[0]].tolist()
    for row in rows:
        step.queue.rows[step.meta.keys[row]]["extra_info"]["decisive"] = [str(first[2])]
    metrics = step.run(step.trainer(weighting="oracle", dump_dir=str(tmp_path)))
    for row, uid in enumerate(ragged_batch.uids):
        tokens = ragged_batch.responses[row].tolist()
        named = uid == "a" and first[2] in tokens
        expected = [1.7 if named and token == first[2] else 1.0 for token in tokens]
        assert step.column(WEIGHTS_FIELD)[row].tolist() == pytest.approx(expected)
    assert metrics["tw_grpo/weight_max"] == pytest.approx(1.7)
    dumped = pq.read_table(tmp_path / "step_000012.parquet").to_pylist()
    assert dumped[0]["decisive"] == [float(token == first[2]) for token in first]
