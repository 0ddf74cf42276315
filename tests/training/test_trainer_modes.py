"""Each of verl's V1 trainers with token weights: chosen by verl's own setting, prompts in order, the old policy's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from verl_twgrpo.training.modes import OURS, choose_trainer, is_ours, prompts_per_batch, verls_mode
from verl_twgrpo.training.prompt_order import PromptOrder


def config(mode, **algorithm):
    return OmegaConf.create(
        {
            "trainer": {"v1": {"trainer_mode": mode}},
            "algorithm": algorithm,
            "data": {"train_batch_size": 8},
            "actor_rollout_ref": {"actor": {"ppo_mini_batch_size": 2}},
        }
    )


@pytest.mark.parametrize("mode", ["colocate_async", "separate_async"])
def test_verls_setting_chooses_our_trainer_over_verls(mode):
    from verl.trainer.ppo.v1 import get_trainer_cls

    run = config(mode, tw_grpo={"alpha": 0.7})
    assert is_ours(run)
    choose_trainer(run)
    chosen = run.trainer.v1.trainer_mode
    assert (chosen, verls_mode(run), is_ours(run)) == (OURS[mode], mode, True)
    assert issubclass(get_trainer_cls(chosen), get_trainer_cls(mode))
    assert get_trainer_cls(chosen).verls_mode == mode


def test_other_runs_keep_their_trainer():
    for run in (config("colocate_async"), config("sync", tw_grpo={}), config("tw_grpo", tw_grpo={})):
        before = run.copy()
        choose_trainer(run)
        assert run == before
    assert not is_ours(config("sync"))


def test_a_batch_is_an_updates_where_a_step_is_taken_in_parts():
    assert prompts_per_batch(config("tw_grpo")) == ("data.train_batch_size", 8)
    assert prompts_per_batch(config(OURS["colocate_async"])) == ("data.train_batch_size", 8)
    key = "actor_rollout_ref.actor.ppo_mini_batch_size"
    assert prompts_per_batch(config("separate_async")) == prompts_per_batch(config(OURS["separate_async"])) == (key, 2)


def test_the_detached_worker_has_verls_methods_and_ours():
    from verl.single_controller.base.decorator import MAGIC_ATTR

    from verl_twgrpo.training.trainer import TWGRPOSeparateAsync

    for name in ("save_model_to_cpu", "restore_model_from_cpu", "last_weights_pass", "init_model", "compute_log_prob"):
        assert hasattr(getattr(TWGRPOSeparateAsync.worker_class, name), MAGIC_ATTR), name


@given(st.data())
@pytest.mark.slow
def test_rows_stand_in_the_order_of_their_prompts_whichever_step_they_come_in(data):
    """Against a plain list of all prompts in the order in which they were sent."""
    order, sent, open_prompts = PromptOrder(), [], []
    for step in range(data.draw(st.integers(1, 4))):
        new = [f"{step}-{k}" for k in data.draw(st.permutations(range(data.draw(st.integers(0, 4)))))]
        order.add(new)
        sent += new
        open_prompts += new
        if data.draw(st.booleans()):  # as a checkpoint and its resumption
            restored = PromptOrder()
            restored.restore(json.loads(json.dumps(order.state)))
            order = restored
        if not open_prompts:
            continue
        batch = data.draw(st.lists(st.sampled_from(open_prompts), unique=True))
        rows = data.draw(st.permutations([f"{uid}_{session}_0" for uid in batch for session in range(11)]))
        expected = [f"{uid}_{session}_0" for uid in sent if uid in batch for session in range(11)]
        assert sorted(rows, key=order.sort_key) == expected
        assert order.take(row.rsplit("_", 2)[0] for row in rows) == {
            uid: place for place, uid in enumerate(uid for uid in sent if uid in batch)
        }
        open_prompts = [uid for uid in open_prompts if uid not in batch]
        assert set(order.state) == set(open_prompts)


def test_prompts_that_nobody_has_numbered_come_last():
    order = PromptOrder()
    order.add(["z"])
    assert sorted(["a_0_0", "z_1_0", "z_0_0"], key=order.sort_key) == ["z_0_0", "z_1_0", "a_0_0"]
    assert order.take(["a", "z"]) == {"z": 0, "a": 1}


@pytest.mark.parametrize("part", [0, 1])
def test_an_extra_pass_runs_under_the_policy_of_the_old_log_probs(part, monkeypatch):
    """verl puts the parameters of the step's beginning back for parts after the first (trainer_separate_async.py)."""
    from verl_twgrpo.training.trainer import TWGRPOSeparateAsync
    from verl_twgrpo.training.trainer_mixin import TokenWeights

    class Workers:
        def __init__(self):
            self.parameters, self.saved = "now", {0: "old"}

        def save_model_to_cpu(self, n):
            self.saved[n] = self.parameters

        def restore_model_from_cpu(self, n):
            self.parameters = self.saved[n]

        def clear_cpu_model(self, n):
            del self.saved[n]

    trainer = TWGRPOSeparateAsync.__new__(TWGRPOSeparateAsync)
    trainer.local_trigger_step, trainer.actor_rollout_wg = part, Workers()
    seen = []
    monkeypatch.setattr(TokenWeights, "_extra_pass", lambda self, *_: seen.append(self.actor_rollout_wg.parameters))
    trainer._extra_pass(None, "column", "blank")
    assert seen == [["now", "old"][part]]
    assert (trainer.actor_rollout_wg.parameters, trainer.actor_rollout_wg.saved) == ("now", {0: "old"})


@pytest.mark.parametrize(
    ("mode", "step", "looks"), [("sync", 5, True), ("colocate_async", 5, False), ("sync", 1, True)]
)
def test_rollout_and_actor_are_compared_where_one_policy_gave_all_responses(mode, step, looks):
    from verl_twgrpo.training.trainer import TWGRPOTrainer

    trainer = TWGRPOTrainer.__new__(TWGRPOTrainer)
    trainer.verls_mode, trainer.global_steps = mode, step
    assert trainer._responses_are_current() is looks
