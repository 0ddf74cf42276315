"""The seams are open: a file outside the package adds a divergence or a weighting, and training takes it.

docs/extending.md shows these very files.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import verl.trainer.ppo.core_algos  # noqa: F401 - first: importing it loads training.losses

from verl_twgrpo.algorithm import chunked_group_divergence, group_divergence
from verl_twgrpo.algorithm.divergences import DIVERGENCES
from verl_twgrpo.algorithm.weightings import WEIGHTINGS
from verl_twgrpo.training.losses import WEIGHTS_FIELD
from verl_twgrpo.training.settings import TWGRPOConfig

# each takes a step in verl's engine
pytestmark = pytest.mark.slow


@pytest.fixture
def load(monkeypatch):
    """Import a file beside this one, and forget what it registered after the test."""
    for registry in (DIVERGENCES, WEIGHTINGS):
        registry.names()
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))

    def run(name):
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return run


def test_a_divergence_of_ones_own_agrees_with_its_definition_and_trains(load, engine_step, ragged_batch, tmp_path):
    with pytest.raises(ValueError, match="divergence 'total_variation' is unknown"):
        TWGRPOConfig(divergence="total_variation")
    load("toy_divergence")
    generator = torch.Generator().manual_seed(0)
    lengths = [9, 4, 7]
    hidden_NH, head_VH = torch.randn(20, 8, generator=generator), torch.randn(31, 8, generator=generator)
    log_probs_GTV = torch.zeros(3, 9, 31)
    for response, logits in enumerate((hidden_NH @ head_VH.t()).split(lengths)):
        log_probs_GTV[response, : len(logits)] = logits.log_softmax(-1)
    torch.testing.assert_close(
        chunked_group_divergence(hidden_NH, lengths, head_VH, kind="total_variation", tokens_per_chunk=5).divergence_T,
        group_divergence(log_probs_GTV, lengths, "total_variation"),
        rtol=1e-5,
        atol=1e-5,
    )
    metrics = engine_step.run(engine_step.trainer(divergence="total_variation", dump_dir=str(tmp_path)))
    assert metrics["tw_grpo/weight_max"] == pytest.approx(1.7)
    assert metrics["tw_grpo/divergence_mean"] > 0.01
    dumped = pq.read_table(tmp_path / "step_000012.parquet").to_pylist()
    row = ragged_batch.uids.index("a")
    assert dumped[0]["weight"] == pytest.approx(engine_step.column(WEIGHTS_FIELD)[row].tolist())
    assert max(dumped[0]["divergence"]) > 0.01


def test_a_weighting_of_ones_own_reads_entropies_and_has_settings(load, engine_step, ragged_batch):
    load("toy_entropy_weighting")
    with pytest.raises(ValueError, match=r"algorithm\.tw_grpo\.settings\.strength=-1: need a number of 0 or more"):
        TWGRPOConfig(weighting="sure", settings={"strength": -1})
    with pytest.raises(ValueError, match=r"tw_grpo\.settings\.power: .* has no such setting; choose from str"):
        TWGRPOConfig(weighting="sure", settings={"power": 1})
    engine_step.run(engine_step.trainer(weighting="sure", settings={"strength": 0.0}))
    plain = engine_step.column("advantages")
    metrics = engine_step.run(engine_step.trainer(weighting="sure", settings={"strength": 0.5}))
    for row, padding in enumerate(ragged_batch.padding):
        expected = 1 + 0.5 * (-engine_step.column("entropy")[row]).exp()
        if not padding:
            torch.testing.assert_close(engine_step.column(WEIGHTS_FIELD)[row], expected)
            torch.testing.assert_close(engine_step.column("advantages")[row], plain[row] * expected)
    assert metrics["tw_grpo/entropy_mean"] > 0
    assert "divergence" not in engine_step.queue.rows[engine_step.meta.keys[0]]  # no head pass ran


def test_a_weighting_of_ones_own_gets_its_extra_pass(load, fake_step, ragged_batch, tmp_path):
    load("toy_view_weighting")
    asked = []

    def infer(extra_info):
        view = extra_info.get("tw_grpo_view")
        asked.append((view, extra_info["calculate_entropy"]))
        less = 0.25 if view else 0.0
        whole = [torch.full((len(p) + len(r),), -1.0 - less) for p, r in zip(*rows, strict=True)]
        nested = torch.nested.as_nested_tensor(whole, layout=torch.jagged)
        return {"log_probs": nested, "entropy": nested} if not view else {"log_probs": nested}

    rows = (ragged_batch.prompts, ragged_batch.responses)
    step = fake_step(ragged_batch, infer, [1.0, 0.0, 0.5, 0.0, 1.0, 1.0, 0.0])
    metrics = step.run(step.trainer(weighting="seen", dump_dir=str(tmp_path), seed=5))
    assert asked == [(None, True), ({"name": "blank", "seed": 5, "step": 12}, False)]
    for row, padding in enumerate(ragged_batch.padding):
        expected = torch.full((len(ragged_batch.responses[row]),), 1.0 if padding else 1.25)
        torch.testing.assert_close(step.column(WEIGHTS_FIELD)[row], expected)
        assert (step.column("old_log_probs")[row] == -1.0).all()
    assert metrics["tw_grpo/log_probs_blank_mean"] == pytest.approx(-1.25)
    (row, *_) = pq.read_table(tmp_path / "step_000012.parquet").to_pylist()
    assert row["log_probs_blank"] == [-1.25] * 6
    assert row["divergence"] is None


@pytest.mark.parametrize("name", ["toy_divergence", "toy_entropy_weighting", "toy_view_weighting"])
def test_the_page_on_extending_shows_these_files(name):
    page = Path(__file__).resolve().parents[2] / "docs/extending.md"
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    assert f"```python\n# {name}.py\n{source}```" in page.read_text(encoding="utf-8")
