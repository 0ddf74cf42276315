"""``verl-twgrpo bench divergence``: time and memory of the group divergence, each case in a fresh process.

Methods: ``gemm`` is the bare head GEMM into memory that is there already, the floor of any one-pass method; ``naive``
is the released code's way, all log-probs of the group at once; ``jsd`` and ``released`` are
``chunked_group_divergence``, which also returns log-probs and entropies; ``jsd_bf16`` and ``released_bf16`` take the
log-probs from logits rounded to bfloat16, as every run does whose model computes in it. Processes of the methods take
turns, so that ratios within a run hold although the machine's load changes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import quantiles

import torch

from verl_twgrpo.algorithm.divergences import RELEASED_CLAMP
from verl_twgrpo.algorithm.head_pass import chunked_group_divergence
from verl_twgrpo.bench.device import add_device, check_device
from verl_twgrpo.bench.memory import MIB, peak_on_cpu, peak_on_gpu
from verl_twgrpo.files import write_csv
from verl_twgrpo.progress import progress

METHODS = ("gemm", "naive", "jsd", "jsd_bf16", "released", "released_bf16")
PROCESSES_PER_METHOD = 3
CALLS_PER_PROCESS = 5


@dataclass(frozen=True)
class Shape:
    """G rows of T tokens each, hidden size H, vocabulary V, dtype of hidden states and head."""

    G: int
    T: int
    H: int
    V: int
    dtype: str = "float32"


SHAPES = (
    Shape(8, 512, 256, 32768),
    Shape(8, 256, 1024, 32768),
    Shape(4, 512, 256, 32768),
    Shape(8, 64, 896, 151936),
)
# heads of 3B and 7B, for --device cuda
QWEN2_5_VL = (Shape(8, 1024, 2048, 151936, "bfloat16"), Shape(8, 1024, 3584, 152064, "bfloat16"))


@dataclass(frozen=True)
class Measurement:
    """One line of the CSV: milliseconds per call, and MiB above the inputs; None where memory ran out."""

    method: str
    G: int
    T: int
    H: int
    V: int
    dtype: str
    p20_ms: float | None
    p50_ms: float | None
    p80_ms: float | None
    peak_mib: float | None
    device: str
    threads: int
    torch: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``verl-twgrpo bench divergence``."""
    parser.add_argument("--csv", type=Path, metavar="F", help="write the measurements to this file")
    parser.add_argument("--plot", type=Path, metavar="F", help="draw them into this file (png, pdf, svg)")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Measures the grid and prints a table."""
    check_device(args.device)
    measurements = []
    for shape in QWEN2_5_VL if args.device == "cuda" else SHAPES:
        of_shape = measure_shape(shape, args.device)
        measurements += of_shape
        print(table(of_shape), flush=True)
    if args.csv:
        write_csv(args.csv, map(asdict, measurements))
    if args.plot:
        draw(measurements, args.plot)
    return 0


def measure_shape(shape: Shape, device: str = "cpu") -> list[Measurement]:
    """All methods at one shape, taking turns, each turn in a process of its own.

    Raises ChildProcessError with the end of the process's output if it fails for another reason than memory.
    """
    turns: dict[str, list[dict]] = {method: [] for method in METHODS}
    what = f"G={shape.G} T={shape.T} H={shape.H} V={shape.V}"
    for method in progress([*METHODS] * PROCESSES_PER_METHOD, len(METHODS) * PROCESSES_PER_METHOD, what, "turn"):
        turns[method].append(_in_fresh_process(method, shape, device))
    name = torch.cuda.get_device_name() if device == "cuda" else device
    measurements = []
    for method, results in turns.items():
        p20 = p50 = p80 = peak = None
        if all(result["ms"] for result in results):
            cuts = quantiles([ms for result in results for ms in result["ms"]], n=10, method="inclusive")
            p20, p50, p80 = cuts[1], cuts[4], cuts[7]
            peak = max(result["peak_mib"] for result in results)
        measurements.append(
            Measurement(
                method,
                **asdict(shape),
                p20_ms=p20,
                p50_ms=p50,
                p80_ms=p80,
                peak_mib=peak,
                device=name,
                threads=torch.get_num_threads(),
                torch=torch.__version__,
            )
        )
    return measurements


def table(measurements: list[Measurement]) -> str:
    """The methods at one shape as text, with ratios of p20 (other load on the machine only adds time) and of peaks."""
    first = measurements[0]
    by_method = {m.method: m for m in measurements}
    lines = [
        f"G={first.G} T={first.T} H={first.H} V={first.V} {first.dtype} on {first.device}, "
        f"{first.threads} threads, torch {first.torch}",
        f"  {'method':<14}{'p20 ms':>10}{'p50 ms':>10}{'p80 ms':>10}{'peak MiB':>10}"
        f"{'x gemm':>9}{'x naive':>9}{'memory / naive':>16}",
    ]
    for m in measurements:
        if m.p50_ms is None:
            lines.append(f"  {m.method:<14}out of memory")
            continue
        gemm, naive = by_method["gemm"], by_method["naive"]
        lines.append(
            f"  {m.method:<14}{m.p20_ms:>10.1f}{m.p50_ms:>10.1f}{m.p80_ms:>10.1f}{m.peak_mib:>10.1f}"
            f"{_ratio(m.p20_ms, gemm.p20_ms):>9}{_ratio(m.p20_ms, naive.p20_ms):>9}"
            f"{_ratio(m.peak_mib, naive.peak_mib):>16}"
        )
    return "\n".join(lines)


def draw(measurements: list[Measurement], path: Path) -> None:
    """Bars of time and of peak memory by shape and method, on log scales."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shapes = list(dict.fromkeys((m.G, m.T, m.H, m.V) for m in measurements))
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.5))
    width = 0.8 / len(METHODS)
    for axis, field, title in zip(
        axes,
        ("p20_ms", "peak_mib"),
        ("time of a call, ms (p20)", "memory above the inputs, MiB (peak)"),
        strict=True,
    ):
        for number, method in enumerate(METHODS):
            heights = {(m.G, m.T, m.H, m.V): getattr(m, field) for m in measurements if m.method == method}
            axis.bar(
                [place + (number - (len(METHODS) - 1) / 2) * width for place in range(len(shapes))],
                [heights[shape] or 0.0 for shape in shapes],
                width,
                label={"gemm": "bare head GEMM", "naive": "naive (released code)"}.get(method, f"chunked, {method}"),
            )
        axis.set_yscale("log")
        axis.set_title(title)
        axis.set_xticks(range(len(shapes)), [f"G={G} T={T}\nH={H} V={V}" for G, T, H, V in shapes])
        axis.grid(axis="y", alpha=0.3)
    axes[0].legend()
    figure.suptitle(f"Group divergence on {measurements[0].device}, {measurements[0].threads} threads")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def naive_divergence(hidden_NH: torch.Tensor, head_VH: torch.Tensor, G: int) -> torch.Tensor:
    """The released divergence the released code's way, each step a [G, T, V] tensor; for rows of equal length."""
    logits_GTV = (hidden_NH @ head_VH.t()).float().view(G, -1, head_VH.shape[0])
    log_probs_GTV = torch.log_softmax(logits_GTV, -1)
    difference_GTV = torch.clamp(log_probs_GTV.mean(0) - log_probs_GTV, -RELEASED_CLAMP, RELEASED_CLAMP)
    return (torch.exp(difference_GTV) - difference_GTV - 1).sum(-1).mean(0)


@torch.no_grad()
def measure(method: str, shape: Shape, device: str = "cpu") -> dict:
    """Times and peak of one method in this process; no times where memory ran out.

    Returns:
        ms: of each call after the first. peak_mib: above the inputs, during the first call.
    """
    on_gpu, dtype = device == "cuda", getattr(torch, shape.dtype)
    generator = torch.Generator(device).manual_seed(0)
    N = shape.G * shape.T
    hidden_NH = torch.randn(N, shape.H, generator=generator, device=device).to(dtype)
    # logits of standard deviation 2
    head_VH = (torch.randn(shape.V, shape.H, generator=generator, device=device) * 2 / shape.H**0.5).to(dtype)
    targets_N = torch.randint(shape.V, (N,), generator=generator, device=device)
    # libraries and thread pools start before anything is measured
    naive_divergence(hidden_NH[: shape.G], head_VH[:64], shape.G)

    logits_NV = torch.zeros(N if method == "gemm" else 0, shape.V, device=device, dtype=dtype)
    chunked = partial(chunked_group_divergence, hidden_NH, [shape.T] * shape.G, head_VH, targets_N=targets_N)
    call = {
        "gemm": lambda: torch.mm(hidden_NH, head_VH.t(), out=logits_NV),
        "naive": lambda: naive_divergence(hidden_NH, head_VH, shape.G),
        "jsd": lambda: chunked(kind="jsd"),
        "jsd_bf16": lambda: chunked(kind="jsd", log_prob_dtype=torch.bfloat16),
        "released": lambda: chunked(kind="released"),
        "released_bf16": lambda: chunked(kind="released", log_prob_dtype=torch.bfloat16),
    }[method]

    def timed() -> float:
        started = time.perf_counter()
        call()
        if on_gpu:
            torch.cuda.synchronize()
        return (time.perf_counter() - started) * 1e3

    try:
        peak_bytes = peak_on_gpu(timed) if on_gpu else peak_on_cpu(timed)
        return {"ms": [timed() for _ in range(CALLS_PER_PROCESS)], "peak_mib": peak_bytes / MIB}
    except torch.OutOfMemoryError:
        return {"ms": [], "peak_mib": None}


def _in_fresh_process(method: str, shape: Shape, device: str) -> dict:
    case = json.dumps({"method": method, "device": device, **asdict(shape)})
    finished = subprocess.run(
        [sys.executable, "-m", "verl_twgrpo.bench.divergence", case], capture_output=True, text=True
    )
    if finished.returncode != 0:
        raise ChildProcessError(f"bench: {method} at {shape} failed: {finished.stderr.strip()[-2000:]}")
    return json.loads(finished.stdout.splitlines()[-1])


def _ratio(value: float | None, of: float | None) -> str:
    return f"{value / of:.3f}" if value is not None and of else "-"


if __name__ == "__main__":
    case = json.loads(sys.argv[1])
    print(json.dumps(measure(case.pop("method"), device=case.pop("device"), shape=Shape(**case))))
