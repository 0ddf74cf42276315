"""Which task scores a row, in verl's reward worker too, and tasks that come from outside the package."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from task_truths import TRUTHS
from verl import DataProto  # first, its plugins declare torchvision's operators where they are missing
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
from verl.trainer.ppo.reward import load_reward_manager

from verl_twgrpo.bench.reward import make_tokenizer
from verl_twgrpo.rewards import TASKS, check_gold, compute_score, registry, score
from verl_twgrpo.rewards.manager import check_settings
from verl_twgrpo.rewards.routing import TaskMixture

pytestmark = pytest.mark.slow

KWARGS = "+reward.custom_reward_function.reward_kwargs"
RESPONSES = {
    task: "<think>x</think>" + TASKS[task].gold(TASKS[task].read_truth(t, {}, "t")) for task, t in TRUTHS.items()
}


def verl_config(*overrides, manager="video_tasks"):
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=[f"reward.reward_manager.name={manager}", *overrides])


def rollout(tokenizer, text, truth, **info):
    ids_1T = torch.tensor([tokenizer.encode(text)])
    return DataProto.from_dict(
        tensors={"responses": ids_1T, "attention_mask": torch.ones_like(ids_1T)},
        non_tensors={
            "data_source": ["mixed"],
            "reward_model": [{"style": "rule", "ground_truth": truth if isinstance(truth, str) else json.dumps(truth)}],
            "extra_info": [{"id": "q1"} | info],
        },
    )


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer([*RESPONSES.values(), '0123456789 [],."'])


def scored(manager, *arguments, **info):
    return manager.loop.run_until_complete(manager.run_single(rollout(manager.tokenizer, *arguments, **info)))


def test_a_mixture_is_scored_row_by_row(tokenizer):
    manager = load_reward_manager(verl_config(), tokenizer)
    for task, truth in TRUTHS.items():
        result = scored(manager, RESPONSES[task], truth, task=task)
        assert result["reward_score"] == 2.0, task
        info = result["reward_extra_info"]
        assert (info["task"], info["benchmark"], info["id"]) == (task, "mixed", "q1")
        expected = score(task, RESPONSES[task], truth)
        assert {name: info[name] for name in expected} == expected


def test_rows_without_a_task_are_multiple_choice_as_ever(tokenizer):
    new, old = (load_reward_manager(verl_config(manager=name), tokenizer) for name in ("video_tasks", "multi_answer"))
    for info in ({}, {"task": None}, {"task": "multiple_choice"}):
        for text in (RESPONSES["multiple_choice"], "<answer>A</answer>", "A"):
            ours = scored(new, text, "A,C", options=list("abcd"), **info)["reward_extra_info"]
            assert ours.pop("task") == "multiple_choice"
            assert ours == scored(old, text, "A,C", options=list("abcd"), **info)["reward_extra_info"]


def test_settings_of_a_task_override_those_of_all(tokenizer):
    config = verl_config(
        f"{KWARGS}.format_weight=0.5",
        f"{KWARGS}.tasks.counting.format_weight=0",
        f"{KWARGS}.tasks.temporal_grounding.overlap=best",
        f"{KWARGS}.tasks.multiple_choice.mode=exact",
    )
    manager = load_reward_manager(config, tokenizer)
    assert scored(manager, RESPONSES["boolean"], "yes", task="boolean")["reward_score"] == 1.5
    assert scored(manager, RESPONSES["counting"], 7, task="counting")["reward_score"] == 1.0
    assert scored(manager, "<think>x</think><answer>A</answer>", "A,C")["reward_score"] == 0.5
    two = RESPONSES["temporal_grounding"]
    assert scored(manager, two, TRUTHS["temporal_grounding"], task="temporal_grounding")["reward_score"] == 0.5


def test_the_overlong_penalty_takes_the_longest_response_of_the_run(tokenizer):
    text = RESPONSES["counting"]
    length = len(tokenizer.encode(text))
    config = verl_config(f"data.max_response_length={length}", f"{KWARGS}.overlong_buffer={length}")
    result = scored(load_reward_manager(config, tokenizer), text, 7, task="counting")
    assert result["reward_score"] == pytest.approx(1.0)
    assert result["reward_extra_info"]["length_reward"] == -1.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mode=exact", "mode: no such reward setting; there are accuracy_weight"),
        ("format_weight=-1", "format_weight: -1 is not a number"),
        ("tasks.temporal_grounding.overlap=hull", "tasks.temporal_grounding: overlap: 'hull'"),
        (
            "tasks.temporal_grunding.overlap=best",
            "tasks.temporal_grunding: task 'temporal_grunding': no such reward task",
        ),
        ("tasks.counting=3", "tasks.counting: 3 is no mapping"),
        ("tasks=[counting]", "tasks: .* is no mapping"),
        ("modules=my_rewards", "modules: 'my_rewards' is not a list"),
        ("modules=[no_such_rewards]", "modules: no_such_rewards cannot be imported: ModuleNotFoundError"),
        ("overlong_buffer=100000", "overlong_buffer: 100000 tokens are more than a response may have"),
    ],
)
def test_a_bad_setting_is_found_on_the_driver_with_its_full_name(override, message):
    config = verl_config(f"{KWARGS}.{override}")
    with pytest.raises(ValueError, match=r"^reward\.custom_reward_function\.reward_kwargs\." + message):
        check_settings(config)


def test_a_row_of_an_unknown_task_or_with_a_bad_truth_is_named():
    mixture = TaskMixture()
    with pytest.raises(ValueError, match="^star: item 4: task 'segmentation' is none of boolean, counting"):
        mixture.score_row("star", "", "A", {"id": 4, "task": "segmentation"})
    with pytest.raises(ValueError, match="^star: item 4: ground truth 'soon' is not JSON"):
        mixture.score_row("star", "", "soon", {"id": 4, "task": "temporal_grounding"})
    with pytest.raises(ValueError, match="^star: item 4: task 'segmentation' is none of"):
        check_gold("star", "A", {"id": 4, "task": "segmentation"})


def test_the_manager_for_letters_refuses_rows_of_other_tasks():
    with pytest.raises(ValueError, match="^star: item 4: task counting is no multiple choice; set .*video_tasks"):
        compute_score("star", "", "7", {"id": 4, "task": "counting"})


def test_a_gold_answer_that_does_not_score_in_full_is_refused():
    registry.task("flat2")(lambda text, truth, settings: {"accuracy": 0.0})
    try:
        with pytest.raises(ValueError, match="^star: item 4: the gold answer .* scores only 0.0"):
            check_gold("star", "x", {"id": 4, "task": "flat2"})
    finally:
        del TASKS["flat2"]


# --- a task from outside the package -------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
SHOUTING = PAGE.partition("# shouting_rewards.py\n")[2].partition("```")[0]
"""The example of the page."""


@pytest.fixture
def shouting(tmp_path) -> Path:
    path = tmp_path / "shouting_rewards.py"
    path.write_text(SHOUTING, encoding="utf-8")
    yield path
    TASKS.pop("shouting", None)


def test_a_task_in_a_users_file_is_scored_by_verls_reward_worker(shouting, tokenizer):
    folder = shouting.parent / "tokenizer"
    tokenizer.save_pretrained(folder)
    config = verl_config(f"{KWARGS}.modules=[{shouting}]", f"actor_rollout_ref.model.path={folder}")
    check_settings(config)
    check_settings(config)  # a second time, as driver and workers may share a process
    worker = RewardLoopWorker(config)
    batch = rollout(tokenizer, "<think>x</think><answer>YES</answer>", "yes", task="shouting")
    (result,) = asyncio.run(worker.compute_score_batch(batch))
    info = result["reward_extra_info"]
    assert (result["reward_score"], info["task"], info["capitals"]) == (2.0, "shouting", 3)
    assert (info["soft_accuracy"], info["parsed"]) == (1.0, 1.0)


def test_a_task_of_an_installed_package_is_found_by_its_entry_point(shouting):
    distribution = shouting.parent / "shouting_rewards-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting-rewards\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text("[verl_twgrpo.rewards]\nshouting = shouting_rewards\n")
    code = (
        "from verl_twgrpo.rewards import TASKS, score; print(score('shouting', '<answer>NO</answer>', 'no')['score'])"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(shouting.parent)!r}); {code}"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "1.0\n"
    shouting.write_text("import no_such_module", encoding="utf-8")
    process = subprocess.run(command, capture_output=True, text=True)
    assert "reward tasks of shouting (shouting_rewards) do not load: ModuleNotFoundError" in process.stderr


def test_a_name_that_is_taken_is_refused(tmp_path):
    path = tmp_path / "counting_again.py"
    path.write_text(SHOUTING.replace("shouting", "counting"), encoding="utf-8")
    with pytest.raises(ValueError, match="reward task counting: verl_twgrpo.rewards.tasks.numbers has this name"):
        TaskMixture.read({"modules": [str(path)]})


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"accuracy": float("nan")}, "task odd: accuracy is nan, need a finite number"),
        ({"accuracy": 1, "words": float("inf")}, "task odd: words is inf"),
        ({"accuracy": 1, "words": "many"}, "task odd: words is 'many'"),
        ({"accuracy": None}, "task odd: accuracy is None"),
        ({"words": 3}, "task odd: its function returned no accuracy, only words"),
    ],
)
def test_a_users_task_that_returns_no_numbers_is_named(returned, message):
    registry.task("odd")(lambda text, truth, settings: returned)
    try:
        with pytest.raises(ValueError, match=f"^{message}"):
            score("odd", "text", "truth")
    finally:
        del TASKS["odd"]
