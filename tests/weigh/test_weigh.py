"""Weightings recomputed from a dump are those that training would have used, and the tables compare them."""

from __future__ import annotations

import csv
import math
import re

import numpy as np
import pytest
import torch
import verl.trainer.ppo.core_algos  # noqa: F401 - first: importing it loads training.losses
from omegaconf import OmegaConf

from verl_twgrpo.algorithm.weightings import Group, weigh_groups
from verl_twgrpo.cli import main
from verl_twgrpo.training.dump import write_settings
from verl_twgrpo.training.losses import WEIGHTS_FIELD
from verl_twgrpo.weigh.command import spread
from verl_twgrpo.weigh.stored import Stored, run_settings, stored_groups
from verl_twgrpo.weigh.tables import class_shares, correlations, signal_means, spearman


@pytest.fixture
def trained(engine_step, tmp_path):
    """``trained(**settings)``: the folder of a run of one step, and the weights of its rows by key."""

    def run(**settings):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        trainer = engine_step.trainer(dump_dir=str(folder / "tw_grpo"), **settings)
        engine_step.run(trainer)
        write_settings(folder / "tw_grpo" / "settings.yaml", OmegaConf.create({"algorithm": {"tw_grpo": settings}}))
        return folder, dict(zip(engine_step.meta.keys, engine_step.column(WEIGHTS_FIELD), strict=True))

    return run


def rows_of_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_weighting_from_the_dump_is_the_one_that_training_would_have_used(trained, tmp_path, capsys, engine_step):
    run, _ = trained()
    weightings = {"top_entropy": {"keep": 0.3}, "gtpo": {}, "entropy_shaping": {}}
    other = {name: trained(weighting=name, settings=settings)[0] for name, settings in weightings.items()}
    names = "tw_grpo,top_entropy:keep=0.3,gtpo,entropy_shaping"
    assert main(["weigh", str(run), "--with", names, "--out", str(tmp_path / "out")]) == 0
    lines = rows_of_csv(tmp_path / "out" / "correlations.csv")
    first = next(line for line in lines if (line["weighting"], line["other"]) == ("as trained", "tw_grpo"))
    assert float(first["spearman"]) == pytest.approx(1.0)
    assert "| as trained | tw_grpo |" in capsys.readouterr().out
    for folder in other.values():
        ran = run_settings(folder / "tw_grpo")
        (here,), (there,) = ((one / "tw_grpo").glob("step_*.parquet") for one in (run, folder))
        stored = stored_groups(here, run_settings(run / "tw_grpo"))
        weigh_groups(ran.make_weighting(), [one.group for one in stored])
        for one, trained_one in zip(stored, stored_groups(there, ran), strict=True):
            for weights_L, trained_L in zip(one.group.weights, trained_one.trained, strict=True):
                torch.testing.assert_close(weights_L, trained_L, rtol=1e-5, atol=1e-6)
    page = (tmp_path / "out" / "tokens.html").read_text()
    assert page.count('<span class="label">gtpo</span>') == page.count('<span class="label">as trained</span>') > 0
    assert main(["weigh", str(run), "--with", "tw_grpo", "--out", str(tmp_path / "out")]) == 2  # it is there


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("vppo", r"--with vppo: reads log_probs_patches, which step 12 of this run's dump does not have"),
        ("tw_grpo_released", r"--with tw_grpo_released: reads divergence released, and this run's dump has jsd"),
        ("nobody", r"--with nobody: .*nobody"),
        ("gtpo,gtpo", r"a preset stands there twice"),
        ("top_entropy:keep=7", r"--with top_entropy:keep=7: .*keep=7"),
    ],
)
def test_what_cannot_be_recomputed_is_said(trained, capsys, names, message):
    run, _ = trained()
    assert main(["weigh", str(run), "--with", names]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_folder_without_dumps_is_named(tmp_path, capsys):
    assert main(["weigh", str(tmp_path), "--with", "tw_grpo"]) == 2
    assert f"{tmp_path}: no step_*.parquet" in capsys.readouterr().err


def test_tokens_of_a_tool_are_left_out_of_tables(ragged_batch, engine_step, tmp_path):
    trainer = engine_step.trainer(dump_dir=str(tmp_path))
    key = engine_step.meta.keys[0]
    mask = torch.ones_like(engine_step.queue.rows[key]["responses"])
    mask[1] = 0
    engine_step.queue.rows[key]["response_mask"] = mask
    engine_step.run(trainer)
    (path,) = tmp_path.glob("step_*.parquet")
    stored = stored_groups(path, None)
    assert stored[0].group.masks[0].tolist() == mask.bool().tolist()
    assert all(mask.all() for mask in stored[0].group.masks[1:])


def made(tokens, weights, masks=None):
    """One group whose responses have these tokens and weights."""
    masks = masks or [torch.ones(len(row), dtype=torch.bool) for row in tokens]
    group = Group("a", list(range(len(tokens))), masks)
    return [Stored(1, group, [], [{"tokens": row} for row in tokens])], [[np.array(row, float) for row in weights]]


def test_shares_by_hand():
    stored, weights = made([["x", " A", " yes. ", " the", " cat"]], [[1, 2, 3, 1, 1]])
    lines = {line["class"]: line for line in class_shares({"w": weights}, stored)}
    assert {name: line["mean_weight"] for name, line in lines.items()} == {
        "first token": 1, "option letter": 2, "verdict word": 3, "function word": 1, "word": 1,
    }  # fmt: skip
    assert lines["verdict word"]["share_of_weight"] == pytest.approx(3 / 8)
    assert lines["verdict word"]["share_of_tokens"] == pytest.approx(1 / 5)


def test_signals_by_hand():
    stored, _ = made([["x", " A", " yes", " the"]], [[1, 1, 1, 1]], [torch.tensor([True, True, True, False])])
    stored[0].group.columns.update(
        old_log_probs=[torch.tensor([-1.0, -2, -3, -9])],
        log_probs_blank=[torch.tensor([-1.0, -2.5, -2, 0])],
        entropy=[torch.tensor([0.5, 1.5, float("nan"), 7])],
    )
    found = {(line["signal"], line["class"]): line["mean"] for line in signal_means(stored)}
    assert found == {
        ("entropy", "first token"): 0.5, ("entropy", "option letter"): 1.5, ("entropy", "all"): 1.0,
        ("|d| blank", "first token"): 0, ("|d| blank", "option letter"): 0.5, ("|d| blank", "verdict word"): 1,
        ("|d| blank", "all"): 0.5,
    }  # fmt: skip


def test_correlations_by_hand():
    stored, up = made([["a"] * 4, ["b"] * 3], [[1, 2, 3, 4], [1, 1, 1]])
    down = [[np.array([4.0, 3, 2, 1]), np.array([1.0, 2, 3])]]
    (line,) = correlations({"up": up, "down": down}, stored)
    assert line["within_response"] == pytest.approx(-1.0)  # the second response has one weight only
    assert (line["tokens"], line["responses"]) == (7, 1)
    assert math.isnan(spearman(np.ones(3), np.arange(3.0)))


@pytest.mark.parametrize(
    ("count", "kept"), [(0, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4]), (3, [0, 2, 4]), (1, [4]), (2, [0, 4])]
)
def test_steps_are_spread_evenly(count, kept):
    assert spread([0, 1, 2, 3, 4], count) == kept
