"""``verl-twgrpo bench reward`` measures the real worker, and says so in a table."""

from __future__ import annotations

import argparse

import pytest
import verl  # noqa: F401  first, its plugins declare torchvision's operators where they are missing

from verl_twgrpo.bench import reward as benchmark
from verl_twgrpo.rewards import TASKS, compute_score


def bench(*arguments):
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return benchmark.run(parser.parse_args(arguments))


def test_the_table_shows_hundreds_of_rollouts_a_second_per_worker(capsys):
    assert bench("--rollouts", "100", "--words", "100") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("100 rollouts of ")
    rates = {line[:30].strip(): [float(cell.replace(",", "")) for cell in line[30:].split()] for line in lines[2:]}
    assert set(rates) == {"compute_score, strict", "compute_score, lenient", "manager, token ids to scores"}
    for median, lowest, highest in rates.values():
        assert 200 < lowest <= median <= highest


def test_the_corpus_is_seeded_and_holds_answers_of_every_kind():
    corpus = benchmark.make_corpus(200, 50, seed=1)
    assert corpus == benchmark.make_corpus(200, 50, seed=1) != benchmark.make_corpus(200, 50, seed=2)
    strict = [compute_score(**rollout) for rollout in corpus]
    lenient = [compute_score(**rollout, lenient=True) for rollout in corpus]
    assert 0 < sum(score["parsed"] for score in strict) < sum(score["parsed"] for score in lenient) == 200
    assert {score["n_truth"] for score in strict} == {1, 2, 3}
    assert len({score["score"] for score in strict}) > 3


@pytest.mark.parametrize("argument", ["--rollouts", "--words"])
def test_an_empty_corpus_is_refused(argument):
    with pytest.raises(ValueError, match=f"^{argument}: 0 is too small"):
        bench(argument, "0")


@pytest.mark.slow
def test_a_megabyte_of_the_worst_text_is_measured_for_every_task(capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "MEGABYTE", 1000)
    assert bench("--rollouts", "10", "--words", "10", "--megabyte") == 0
    lines = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert {line.split()[0] for line in lines[1:]} == set(TASKS) == set(benchmark.TRUTHS)
    assert all(float(line.split()[1]) >= 0 for line in lines[1:])


@pytest.mark.parametrize("task", sorted(benchmark.TRUTHS))
def test_random_texts_score_without_an_exception(task):
    assert benchmark.fuzz(task, 300, seed=1) == []
    texts = list(benchmark.fuzzed(task, 300, seed=1))
    assert len(set(texts)) > 200 and texts == list(benchmark.fuzzed(task, 300, seed=1))


def test_a_text_that_raises_and_a_score_that_cannot_be_are_found(monkeypatch, capsys):
    import verl_twgrpo.rewards as rewards

    stock = rewards.score

    def broken(task, text, truth, settings=None):
        if "<glue>" in text:
            raise KeyError("glue")
        scores = stock(task, text, truth, settings)
        return scores | {"accuracy": 1.5} if "<<" in text else scores

    monkeypatch.setattr(rewards, "score", broken)
    found = benchmark.fuzz("grounded_qa", 300, seed=1)
    assert any(line.startswith("KeyError: 'glue': ") for line in found)
    assert any(line.startswith("scores {") for line in found)
