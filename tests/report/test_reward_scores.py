"""A reward from outside the package: whatever number it reports is logged, dumped and shown."""

from __future__ import annotations

import argparse

import pytest
import torch

from verl_twgrpo.algorithm.weightings import Group
from verl_twgrpo.report import command
from verl_twgrpo.rewards import TASKS, TaskMixture, task
from verl_twgrpo.training.dump import write_step
from verl_twgrpo.training.metrics import reward_metrics


class Column(list):
    tolist = unbind = lambda self: list(self)


class Tokenizer:
    def decode(self, ids, skip_special_tokens=False):
        return "".join(f"<{token}>" for token in ids)


@pytest.fixture
def shouting():
    @task("shouting")
    def shouting(text, truth, settings):
        return {"accuracy": float(settings.answer(text) == truth.upper()), "capitals": sum(map(str.isupper, text))}

    yield "shouting"
    del TASKS["shouting"]


def jagged(*rows):
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


@pytest.mark.slow
def test_every_number_of_a_users_reward_is_logged_dumped_and_shown(shouting, make_run, tmp_path):
    info = {"id": "q1", "task": shouting}
    texts = ("<think>x</think><answer>YES</answer>", "<answer>no</answer>")
    infos = [TaskMixture().score_row("mine", text, "yes", info) for text in texts]
    scalars = {name: {1: value, 2: value + 1} for name, value in reward_metrics(infos).items()}
    run = make_run("mine", scalars=scalars)
    data = {
        "responses": jagged([5, 6], [7, 8, 9]),
        "entropy": jagged([0.1, 0.2], [0.3, 0.4, 0.5]),
        "old_log_probs": jagged([-1.0, -2.0], [-3.0, -4.0, -5.0]),
        "advantages": jagged([1.0, 1.0], [-1.0, -1.0, -1.0]),
        "rm_scores": torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]),
        "reward_model": Column([{"ground_truth": "yes"}] * 2),
        "extra_fields": Column([{"reward_extra_info": info} for info in infos]),
        "extra_info": Column([info] * 2),
    }
    masks = [torch.ones(length, dtype=torch.bool) for length in (2, 3)]
    divergence = [torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0, 2.0])]
    group = Group("u", [0, 1], masks, {"divergence": divergence}, step=1)
    group.weights = [torch.tensor([1.0, 1.5]), torch.tensor([1.0, 1.5, 1.7])]
    write_step(run / "tw_grpo" / "step_000001.parquet", 1, data, [group], Tokenizer())

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args([str(run), "--out", str(tmp_path / "out")])) == 0
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| mine | shouting | capitals | 1.5 → 2.5 |" in page
    assert "| mine | shouting | accuracy | 0.5 → 1.5 |" in page
    heat_map = (tmp_path / "out" / "tokens.html").read_text(encoding="utf-8")
    assert "accuracy 1 · soft 1 · format 1 · parsed 1 · capitals 3" in heat_map
    assert "accuracy 0 · soft 0 · format 0 · parsed 1 · capitals 0" in heat_map
