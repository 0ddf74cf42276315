"""The reward inside verl: its loaders, its reward worker and its validation metrics, without Ray."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from verl import DataProto  # first, its plugins declare torchvision's operators where they are missing
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
from verl.trainer.ppo.metric_utils import process_validation_metrics
from verl.trainer.ppo.reward import get_custom_reward_fn, load_reward_manager

from verl_twgrpo.bench.reward import make_tokenizer
from verl_twgrpo.rewards.manager import MultiAnswerRewardManager, settings_from_config
from verl_twgrpo.rewards.scoring import RewardSettings, compute_score

pytestmark = pytest.mark.slow

RIGHT, HALF, WRONG, SINGLE = (f"<think>so</think><answer>{letters}</answer>" for letters in ("A, C", "A", "A, B", "B"))
KWARGS = "+reward.custom_reward_function.reward_kwargs"


@cache
def tokenizer():
    return make_tokenizer([RIGHT, HALF, WRONG, SINGLE])


def verl_config(*overrides, manager="multi_answer"):
    """verl's own trainer configuration with overrides as on the command line."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=[f"reward.reward_manager.name={manager}", *overrides])


def rollouts(responses, truth="A,C", **extra_info):
    """Rollouts as verl's agent loop hands them over: one row each, right-padded responses."""
    ids = [torch.tensor(tokenizer().encode(response)) for response in responses]
    responses_GT = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=0)
    prompt_mask_GP = torch.ones(len(ids), 3, dtype=torch.long)
    response_mask_GT = torch.stack([(torch.arange(responses_GT.shape[1]) < len(row)).long() for row in ids])
    info = {"id": "q1", "options": ["a", "b", "c", "d"]} | extra_info
    return DataProto.from_dict(
        tensors={
            "prompts": torch.zeros_like(prompt_mask_GP),
            "responses": responses_GT,
            "attention_mask": torch.cat([prompt_mask_GP, response_mask_GT], dim=1),
        },
        non_tensors={
            "data_source": ["clevrer"] * len(ids),
            "reward_model": [{"style": "rule", "ground_truth": truth}] * len(ids),
            "extra_info": [info] * len(ids),
        },
    )


def run_single(manager, *rollout, **rows):
    return manager.loop.run_until_complete(manager.run_single(rollouts(*rollout, **rows)))


def test_verl_finds_the_manager_by_name_and_scores_with_it():
    manager = load_reward_manager(verl_config(), tokenizer())
    assert isinstance(manager, MultiAnswerRewardManager)
    result = run_single(manager, [HALF])
    assert result["reward_score"] == 1.5
    assert result["reward_extra_info"] == compute_score(
        "clevrer", HALF, "A,C", {"id": "q1", "options": ["a", "b", "c", "d"]}
    )


def test_the_manager_scores_the_last_sequence_without_its_padding():
    manager = load_reward_manager(verl_config(), tokenizer())
    assert run_single(manager, [WRONG + WRONG, RIGHT])["reward_score"] == 2.0


def test_settings_come_from_the_command_line():
    config = verl_config(
        f"{KWARGS}.mode=exact",
        f"{KWARGS}.format_weight=0.5",
        f"{KWARGS}.strict_format=true",
        f"{KWARGS}.lenient=[spaces,and_word]",
    )
    assert settings_from_config(config) == RewardSettings("exact", ["spaces", "and_word"], 0.5, True)
    manager = load_reward_manager(config, tokenizer())
    assert run_single(manager, [HALF])["reward_score"] == 0.5
    assert run_single(manager, [RIGHT.replace(", ", " and ")])["reward_score"] == 1.5


def test_without_settings_the_reward_is_the_released_recipe():
    assert settings_from_config(verl_config()) == RewardSettings("soft", False, 1.0, False)
    assert settings_from_config(verl_config(f"{KWARGS}=null")) == RewardSettings()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mode=hard", r"reward_kwargs\.mode: 'hard' is not one of soft, exact"),
        ("format_weight=-1", r"reward_kwargs\.format_weight: -1 is not"),
        ("lenient=yess", r"reward_kwargs\.lenient: 'yess' is neither"),
        ("strict_format=2", r"reward_kwargs\.strict_format: 2 is neither"),
        ("modus=soft", r"reward_kwargs\.modus: no such reward setting"),
    ],
)
def test_a_bad_setting_stops_the_construction_with_its_full_name(override, message):
    with pytest.raises(ValueError, match=r"^reward\.custom_reward_function\." + message):
        load_reward_manager(verl_config(f"{KWARGS}.{override}"), tokenizer())


def test_a_custom_reward_function_beside_the_manager_is_refused():
    path = "reward.custom_reward_function.path=pkg://verl_twgrpo.rewards.scoring"
    with pytest.raises(ValueError, match="reward.custom_reward_function.path: .*unset"):
        load_reward_manager(verl_config(path), tokenizer())


def test_a_bad_truth_stops_the_worker_with_the_id_of_the_row():
    manager = load_reward_manager(verl_config(), tokenizer())
    with pytest.raises(ValueError, match="clevrer: item q1: ground truth E is not among the options A,B,C,D"):
        run_single(manager, [RIGHT], truth="E")


def test_compute_score_serves_as_the_custom_function_of_another_manager():
    config = verl_config(
        "reward.custom_reward_function.path=pkg://verl_twgrpo.rewards.scoring",
        f"{KWARGS}.mode=exact",
        manager="naive",
    )
    function = get_custom_reward_fn(config)
    assert function(data_source="s", solution_str=HALF, ground_truth="A,C", extra_info=None)["score"] == 1.0
    result = run_single(load_reward_manager(config, tokenizer()), [RIGHT])
    assert result["reward_score"] == 2.0
    assert result["reward_extra_info"]["n_truth"] == 2


def test_the_reward_worker_of_verl_scores_a_batch_whose_columns_the_scores_can_join(tmp_path):
    tokenizer().save_pretrained(tmp_path)
    worker = RewardLoopWorker(verl_config(f"actor_rollout_ref.model.path={tmp_path}"))
    batch = rollouts([RIGHT, HALF, WRONG, "no tags"])
    results = asyncio.run(worker.compute_score_batch(batch))
    assert [result["reward_score"] for result in results] == [2.0, 1.5, 1.0, 0.0]
    infos = [result["reward_extra_info"] for result in results]
    columns = {key: np.array([info[key] for info in infos]) for key in infos[0]}  # as verl's agent loop makes them
    scores = DataProto.from_dict(tensors={"rm_scores": torch.zeros(len(infos), 1)}, non_tensors=columns)
    assert set(batch.union(scores).non_tensor_batch["id"]) == {"q1"}


# (data source, truth, responses): two single, one multiple question of one source, a multiple one of another
VALIDATION = [
    ("clevrer", "B", [SINGLE, WRONG]),
    ("clevrer", "A", [SINGLE, SINGLE]),
    ("clevrer", "A,C", [RIGHT, HALF]),
    ("star", "A,C", [RIGHT, HALF]),
]
# what verl should log: means over the questions that a key belongs to
EXPECTED = {
    ("clevrer", "accuracy"): (0.5 + 0 + 0.5) / 3,
    ("clevrer", "acc"): (0.5 + 0 + 0.5) / 3,
    ("clevrer", "accuracy_single"): (0.5 + 0) / 2,
    ("clevrer", "accuracy_multiple"): 0.5,
    ("clevrer", "soft_accuracy"): (0.5 + 0 + 0.75) / 3,
    ("clevrer", "soft_accuracy_multiple"): 0.75,
    ("clevrer", "format"): 1.0,
    ("clevrer", "parsed"): 1.0,
    ("clevrer", "n_truth"): 4 / 3,
    ("star", "accuracy_multiple"): 0.5,
    ("star", "soft_accuracy_multiple"): 0.75,
}


def validation_rows():
    for number, (source, truth, responses) in enumerate(VALIDATION):
        for response in responses:
            yield (
                source,
                f"uid{number}",
                compute_score(source, response, truth, {"id": f"q{number}", "options": ["a", "b", "c"]}),
            )


def test_validation_metrics_of_verl_tell_single_from_multiple():
    sources, uids, scores = zip(*validation_rows(), strict=True)
    columns = {key: [score[key] for score in scores] for key in scores[0]}
    metrics = process_validation_metrics(list(sources), list(uids), columns)
    assert {key: metrics[key[0]][key[1]]["mean@2"] for key in EXPECTED} == pytest.approx(EXPECTED)
    assert not {"id", "benchmark"} & metrics["clevrer"].keys()  # names are no numbers to average
    assert "accuracy_single" not in metrics["star"]  # no single question there, so no number that looks like one


def test_the_trainer_of_verl_logs_exact_accuracy_as_core_metric_and_counts_failed_rollouts():
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    sources, uids, scores = zip(*validation_rows(), strict=True)
    columns = {"reward": [score["score"] for score in scores]}
    columns |= {key: [score[key] for score in scores] for key in scores[0]}
    expected_counts = {(source, uid): 2 for source, uid in zip(sources, uids, strict=True)} | {("star", "uid3"): 4}
    logged = PPOTrainer._val_metrics_update(
        None, list(sources), list(uids), columns, [2] * len(sources), expected_counts
    )
    assert logged["val-core/clevrer/acc/mean@2"] == pytest.approx(EXPECTED["clevrer", "acc"])
    assert logged["val-aux/clevrer/accuracy_single/mean@2"] == pytest.approx(EXPECTED["clevrer", "accuracy_single"])
    assert logged["val-aux/star/soft_accuracy_multiple/mean@2"] == 0.75
    assert logged["val-core/star/acc/mean@4"] == 0.25  # one right, one wrong, and two that failed


def test_a_dump_of_verl_holds_the_result_and_the_name_of_its_row(tmp_path):
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    score = compute_score("clevrer", RIGHT, "A,C", {"id": "q1"})
    columns = {"reward": [score["score"]], **{key: [value] for key, value in score.items()}, "uid": ["u_0_0"]}
    PPOTrainer._write_generations(["question"], [RIGHT], ["A,C"], [score["score"]], columns, tmp_path, 3)
    row = json.loads((tmp_path / "3.jsonl").read_text(encoding="utf-8"))
    assert (row["id"], row["benchmark"], row["output"], row["gts"], row["step"]) == ("q1", "clevrer", RIGHT, "A,C", 3)
    assert (row["accuracy"], row["accuracy_single"]) == (1.0, None)


def test_the_rewards_import_neither_verl_nor_torch():
    modules = ", ".join(f"verl_twgrpo.rewards.{name}" for name in ("answers", "truth", "scoring"))
    code = f"import {modules}, sys; print({{'verl', 'torch', 'verl_twgrpo.data'}} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert process.stdout == "set()\n"
