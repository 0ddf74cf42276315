"""T-GRPO's rollouts: which are asked for, what they see, and that none of them is trained on."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import torch
import verl.experimental.agent_loop  # noqa: F401 - registers the loops
from transfer_queue import KVBatchMeta
from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils import tensordict_utils as tu

from verl_twgrpo.training.settings import SEEDED_SHUFFLING_LOOP, SHUFFLING_LOOP
from verl_twgrpo.training.shuffled_frames import (
    ORDERED,
    SHUFFLED,
    SeededShufflingSingleTurnAgentLoop,
    ShufflingSingleTurnAgentLoop,
    frame_order,
    shuffled,
)
from verl_twgrpo.video.sharing import shared_frames

VIDEO = [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}, {"type": "text", "text": "?"}]}]
PICTURE = [{"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "?"}]}]
TEXT = [{"role": "user", "content": "?"}]


@pytest.mark.parametrize(
    ("name", "cls"), [(SHUFFLING_LOOP, "ShufflingSingle"), (SEEDED_SHUFFLING_LOOP, "SeededShufflingSingle")]
)
def test_verl_finds_the_loops_by_their_names(name, cls):
    assert cls in _agent_loop_registry[name]["_target_"]


@pytest.fixture
def loop(monkeypatch):
    """``loop(cls, **kwargs)``: what one rollout's video is, through verl's own ``run``, which reads it and answers."""
    frames = torch.arange(6.0).view(6, 1, 1, 1)

    async def read(self, messages):
        return {"videos": [(frames, {"fps": 2.0})], "images": ["as it is"]}

    async def run(self, sampling_params, **kwargs):
        data = await self.process_multi_modal_info(kwargs["raw_prompt"])
        return SimpleNamespace(extra_fields={}, data=data, seed=sampling_params.get("seed"))

    monkeypatch.setattr(SingleTurnAgentLoop, "process_multi_modal_info", read)
    monkeypatch.setattr(SingleTurnAgentLoop, "run", run)

    def answer(cls=ShufflingSingleTurnAgentLoop, **kwargs):
        made = object.__new__(cls)
        made.rollout_config = SimpleNamespace(seed=7)
        made.config = SimpleNamespace(algorithm=SimpleNamespace(tw_grpo=SimpleNamespace(seed=0)))
        return asyncio.run(made.run({}, raw_prompt=VIDEO, index=3, global_steps=1, **kwargs))

    return answer


def test_rollouts_of_the_group_see_the_frames_in_order_and_those_beyond_it_do_not(loop):
    def order(output):
        return output.data["videos"][0][0].flatten().tolist()

    outputs = [loop(session_id=session, **{ORDERED: 4}) for session in range(6)]
    assert [output.extra_fields[SHUFFLED] for output in outputs] == [False] * 4 + [True] * 2
    assert all(order(output) == [0, 1, 2, 3, 4, 5] for output in outputs[:4])
    assert order(outputs[4]) == order(outputs[5]) != [0, 1, 2, 3, 4, 5]
    assert sorted(order(outputs[4])) == [0, 1, 2, 3, 4, 5]
    assert all(output.data["videos"][0][1] == {"fps": 2.0} for output in outputs)
    assert all(output.data["images"] == ["as it is"] for output in outputs)


def test_validation_is_never_shuffled(loop):
    assert not loop(session_id=31).extra_fields[SHUFFLED]


def test_the_seeded_loop_seeds_as_well(loop):
    seeds = {loop(SeededShufflingSingleTurnAgentLoop, session_id=session, **{ORDERED: 2}).seed for session in range(3)}
    assert len(seeds) == 3 and None not in seeds


def test_every_form_of_a_video_is_shuffled_alike():
    frames = torch.arange(5.0).view(5, 1)
    order = frame_order(5, seed=1)
    assert shuffled(frames, 1).flatten().tolist() == order
    assert shuffled((frames, {"fps": 1}), 1)[1] == {"fps": 1}
    assert shuffled(list("abcde"), 1) == ["abcde"[place] for place in order]


@pytest.mark.parametrize("seed", range(20))
def test_two_frames_are_never_left_in_their_order(seed):
    assert frame_order(2, seed) == [1, 0]
    assert frame_order(1, seed) == [0]


def test_cached_frames_in_another_order_are_shared_too():
    bytes_TCHW = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1)
    frames, _ = shared_frames(lambda video: (bytes_TCHW, {}), {})
    assert shuffled(frames, 1) is shuffled(frames, 1)
    assert shuffled(frames, 1).flatten().tolist() == frame_order(6, 1)
    assert shuffled(frames, 2).flatten().tolist() == frame_order(6, 2)


def test_prompts_with_a_video_are_answered_more_often(fake_step, ragged_batch, monkeypatch):
    prompts = tu.get_tensordict({"uid": ["v", "p", "t"], "raw_prompt": [VIDEO, PICTURE, TEXT]})
    monkeypatch.setattr(PPOTrainer, "_next_train_batch", lambda self, num_prompts=None: prompts)
    trainer = fake_step(ragged_batch, lambda extra_info: {}, [0.0] * len(ragged_batch.uids)).trainer(temporal_bonus={})
    trainer.config.actor_rollout_ref.rollout.n = 4
    asked = trainer._next_train_batch()
    assert list(asked["__rollout_n__"]) == [6, 4, 4]
    assert list(asked[ORDERED]) == [4, 4, 4]


@pytest.fixture
def arrived(fake_step, ragged_batch, monkeypatch):
    """Three rollouts on the frames in order and one on shuffled ones of prompt a; two of b, which has no video."""
    keys = ["a_0_0", "a_1_0", "b_0_0", "a_3_0", "a_2_0", "b_1_0", "pad"]
    accuracies = [1.0, 0.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    step = fake_step(ragged_batch, lambda extra_info: {}, accuracies, keys=keys)
    for key, accuracy in zip(keys, accuracies, strict=True):
        scores = {"accuracy": float(accuracy == 1), "soft_accuracy": accuracy}
        step.queue.rows[key]["extra_fields"] = {"reward_extra_info": scores, SHUFFLED: key == "a_3_0"}
    step.meta = KVBatchMeta(partition_id="train", keys=keys[:6], tags=[step.queue.tags[key] for key in keys[:6]])
    step.cleared = []
    monkeypatch.setattr("transfer_queue.kv_clear", lambda keys, partition_id: step.cleared.extend(keys))
    # verl's own balancing comes after
    monkeypatch.setattr(PPOTrainer, "_balance_batch", lambda self, batch, metrics, *args: batch)
    return step


def test_shuffled_rollouts_are_scored_and_dropped_and_the_bonus_is_in_the_rewards(arrived):
    trainer = arrived.trainer(alpha=0.0, temporal_bonus={"mu": 0.5})
    metrics = {}
    batch = trainer._balance_batch(arrived.meta, metrics)
    assert batch.keys == ["a_0_0", "a_1_0", "a_2_0", "b_0_0", "b_1_0"]
    assert arrived.cleared == ["a_3_0"]
    rewards = [arrived.queue.rows[key]["rm_scores"].sum().item() for key in batch.keys]
    # p = .5 of a is half of p~ = 1: the right ones, at .1 and above, are paid .3; b has no video
    assert rewards == pytest.approx([1.3, 0.0, 0.8, 1.0, 0.0])
    named = [arrived.queue.rows[key]["extra_fields"]["reward_extra_info"] for key in batch.keys]
    assert [scores["temporal_bonus"] for scores in named] == pytest.approx([0.3, 0.0, 0.3, 0.0, 0.0])
    assert [scores["soft_accuracy"] for scores in named] == [1.0, 0.0, 0.5, 1.0, 0.0]
    assert metrics == {
        "t_grpo/accuracy_ordered": 0.5, "t_grpo/accuracy_shuffled": 1.0, "t_grpo/passed": 1.0, "t_grpo/prompts": 1.0,
        "t_grpo/bonus_mean": pytest.approx(0.12),
    }  # fmt: skip


def test_without_the_share_of_the_shuffled_accuracy_nobody_is_paid(arrived):
    metrics = {}
    batch = arrived.trainer(alpha=0.0, temporal_bonus={})._balance_batch(arrived.meta, metrics)
    assert [arrived.queue.rows[key]["rm_scores"].sum().item() for key in batch.keys] == [1.0, 0.0, 0.5, 1.0, 0.0]
    assert metrics["t_grpo/passed"] == 0.0


def test_rollouts_of_another_loop_stop_the_run(arrived):
    arrived.queue.rows["a_3_0"]["extra_fields"][SHUFFLED] = False
    with pytest.raises(RuntimeError, match="should have seen shuffled frames saw them in order"):
        arrived.trainer(alpha=0.0, temporal_bonus={})._balance_batch(arrived.meta, {})


def test_a_reward_without_that_score_is_named(arrived):
    trainer = arrived.trainer(alpha=0.0, temporal_bonus={"score": "iou"})
    with pytest.raises(ValueError, match=r"temporal_bonus\.score=iou: .* choose from accuracy, soft_accuracy"):
        trainer._balance_batch(arrived.meta, {})
