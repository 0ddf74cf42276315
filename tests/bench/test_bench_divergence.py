"""``bench divergence`` at a size of milliseconds: every column is filled, and the methods agree."""

from __future__ import annotations

import csv

import pytest
import torch

from verl_twgrpo.algorithm import group_divergence
from verl_twgrpo.bench import divergence as bench
from verl_twgrpo.cli import main

TINY = bench.Shape(2, 16, 8, 4096)


@pytest.fixture
def tiny_grid(monkeypatch):
    monkeypatch.setattr(bench, "SHAPES", (TINY,))
    monkeypatch.setattr(bench, "PROCESSES_PER_METHOD", 1)


@pytest.mark.slow
def test_the_command_prints_ratios_and_writes_csv_and_plot(tiny_grid, tmp_path, capsys):
    table, plot = tmp_path / "bench.csv", tmp_path / "bench.png"
    assert main(["bench", "divergence", "--csv", str(table), "--plot", str(plot)]) == 0
    printed = capsys.readouterr().out
    assert "x gemm" in printed and "memory / naive" in printed
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == list(bench.METHODS)
    for row in rows:
        assert (row["G"], row["T"], row["H"], row["V"], row["dtype"]) == ("2", "16", "8", "4096", "float32")
        assert 0 < float(row["p20_ms"]) <= float(row["p50_ms"]) <= float(row["p80_ms"])
        assert float(row["peak_mib"]) >= 0 and row["torch"] == torch.__version__
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("command", ["divergence", "group", "step"])
def test_cuda_is_refused_where_there_is_none(command, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", command, "--device", "cuda"]) == 2
    assert "--device cuda: torch" in capsys.readouterr().err


def test_the_naive_method_computes_the_released_divergence():
    generator = torch.Generator().manual_seed(0)
    hidden_NH, head_VH = torch.randn(12, 8, generator=generator), torch.randn(31, 8, generator=generator)
    log_probs_GTV = torch.log_softmax(hidden_NH @ head_VH.t(), -1).view(3, 4, 31)
    torch.testing.assert_close(
        bench.naive_divergence(hidden_NH, head_VH, 3), group_divergence(log_probs_GTV, [4, 4, 4], "released")
    )


def test_peak_memory_on_the_cpu_sees_what_a_call_holds_for_a_while():
    def call() -> None:
        held = torch.ones(32 * bench.MIB // 4)
        for _ in range(20):
            held.add_(1.0)

    assert 30 < bench.peak_on_cpu(call) / bench.MIB < 40


def test_memory_that_runs_out_is_reported_as_such(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(bench, "naive_divergence", lambda hidden_NH, head_VH, G: None)
    monkeypatch.setattr(bench, "chunked_group_divergence", refuse)
    assert bench.measure("jsd", TINY) == {"ms": [], "peak_mib": None}
    gone = bench.Measurement("jsd", 2, 16, 8, 4096, "float32", None, None, None, None, "cpu", 2, "2.13")
    floor = bench.Measurement("gemm", 2, 16, 8, 4096, "float32", 1.0, 2.0, 3.0, 4.0, "cpu", 2, "2.13")
    naive = bench.Measurement("naive", 2, 16, 8, 4096, "float32", 4.0, 8.0, 9.0, 40.0, "cpu", 2, "2.13")
    lines = bench.table([floor, naive, gone]).splitlines()
    assert lines[-1].split() == ["jsd", "out", "of", "memory"]
    assert lines[-2].split()[-3:] == ["4.000", "1.000", "1.000"]


@pytest.mark.slow
def test_a_case_that_fails_says_which_and_why():
    with pytest.raises(OSError, match="naive at Shape.*no_such_type"):
        bench._in_fresh_process("naive", bench.Shape(2, 16, 8, 64, "no_such_type"), "cpu")
