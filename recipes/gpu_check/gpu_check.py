"""Divergence and packed groups on one GPU: exact, and how fast, at the layers of Qwen2.5-VL-3B and 7B.

Imports of this package what needs torch and transformers alone. Writes gpu_check.json and gpu_check.md, and ends with 1
if a check fails. ``--device cpu --tiny`` runs the same on a processor in seconds, to test the script.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from verl_twgrpo.algorithm import chunked_group_divergence, group_divergence
from verl_twgrpo.bench import divergence as divergence_bench
from verl_twgrpo.bench.device import add_device, check_device
from verl_twgrpo.bench.group import BODIES, SMALL, make_model, packed_log_probs, padded_log_probs
from verl_twgrpo.bench.memory import MIB, peak_on_gpu
from verl_twgrpo.training.engines import packed_attention as attention

TINY = SMALL | {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
CALLS = 5


@dataclass
class Check:
    """A largest gap, and what it may be."""

    what: str
    gap: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.gap <= self.limit


@dataclass
class Timing:
    """Median milliseconds of a call and peak MiB above its inputs (GPU only); None where memory ran out."""

    what: str
    ms: float | None
    peak_mib: float | None


@dataclass(frozen=True)
class Scale:
    """Sizes of a run: text bodies, prompt and response tokens of the timings and of the checks, G, and heads."""

    bodies: dict[str, dict[str, int]]
    timed: tuple[int, int]
    checked: tuple[int, int]
    G: int
    heads: tuple[divergence_bench.Shape, ...]


FULL = Scale({name: BODIES[name] for name in ("3b", "7b")}, (1180, 250), (128, 64), 8, divergence_bench.QWEN2_5_VL)
SMALLEST = Scale({"tiny": TINY}, (12, 5), (9, 4), 3, (divergence_bench.Shape(2, 8, 8, 64),))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_device(parser)
    parser.set_defaults(device="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes of a test, not of a measurement")
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu_check"))
    args = parser.parse_args()
    try:
        check_device(args.device)
    except ValueError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    scale, started = SMALLEST if args.tiny else FULL, time.monotonic()
    checks = [*check_divergence(scale, args.device), *check_attention(scale, args.device)]
    timings = time_divergence(scale, args.device)
    for name, body in scale.bodies.items():
        checks += check_packed(name, body, scale, args.device)
        timings += [*time_packed(name, body, scale, args.device), *time_attention(name, body, scale, args.device)]
    report = {
        **environment(args.device),
        "seconds": time.monotonic() - started,
        "checks": [asdict(check) | {"passed": check.passed} for check in checks],
        "timings": [asdict(timing) for timing in timings],
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "gpu_check.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / "gpu_check.md").write_text(table := as_table(report))
    print(table, end="")
    return 0 if all(check.passed for check in checks) else 1


def environment(device: str) -> dict[str, str | None]:
    """Names and versions that a number needs beside it."""
    import transformers

    kernel = attention.flash_kernel() if device == "cuda" else None
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "packed_attention": "flash-attn varlen" if kernel else "torch's scaled_dot_product_attention by blocks",
    }


def check_divergence(scale: Scale, device: str) -> list[Check]:
    """The chunked pass against the definition in float64 on the same inputs, responses of unequal length."""
    checks = []
    for shape in scale.heads:
        lengths = [7, 4, 7, 1]
        hidden_NH = torch.randn(sum(lengths), shape.H, device=device).to(getattr(torch, shape.dtype))
        head_VH = (torch.randn(shape.V, shape.H, device=device) * 2 / shape.H**0.5).to(hidden_NH.dtype)
        targets_N = torch.randint(shape.V, (sum(lengths),), device=device)
        log_probs_NV = (hidden_NH.double() @ head_VH.double().t()).log_softmax(-1)
        log_probs_GTV = log_probs_NV.new_zeros(len(lengths), max(lengths), shape.V)
        for row, part in enumerate(log_probs_NV.split(lengths)):
            log_probs_GTV[row, : len(part)] = part
        for kind in ("jsd", "released", "live"):
            made = chunked_group_divergence(hidden_NH, lengths, head_VH, kind=kind, targets_N=targets_N)
            expected_T = group_divergence(log_probs_GTV, lengths, kind)
            # released grows with the vocabulary, hence relative
            gap_T = (made.divergence_T.double() - expected_T).abs() / expected_T.abs().clamp(min=1)
            checks.append(Check(f"divergence {kind}, V={shape.V} {shape.dtype}", gap_T.max().item(), 1e-3))
            gap_N = made.log_probs_N.double() - log_probs_NV.gather(1, targets_N[:, None])[:, 0]
            checks.append(Check(f"log-probs with {kind}, V={shape.V} {shape.dtype}", gap_N.abs().max().item(), 1e-3))
    return checks


def attention_paths(device: str) -> dict[str, Callable[..., torch.Tensor]]:
    """Every way of attending over a packed row that is there: (layout, query, key, value) -> [1, S, heads, D]."""
    from torch.nn.attention.flex_attention import flex_attention

    class Shared(torch.nn.Module):
        def __init__(self, groups: int) -> None:
            super().__init__()
            self.num_key_value_groups = groups

    flex = torch.compile(flex_attention) if device == "cuda" else flex_attention
    paths: dict[str, Callable[..., torch.Tensor]] = {
        "sdpa by blocks": lambda layout, q, k, v: attention.by_blocks(
            Shared(q.shape[1] // k.shape[1]), layout, q, k, v, 0.0, None
        ),
        "flex_attention": lambda layout, q, k, v: attention.by_flex(flex, layout, q, k, v, None),
    }
    kernel = attention.flash_kernel() if device == "cuda" else None
    if kernel is not None:
        paths["flash-attn varlen"] = lambda layout, q, k, v: attention.by_varlen(kernel, layout, q, k, v, 0.0, None)
    return paths


def check_attention(scale: Scale, device: str) -> list[Check]:
    """Each path against dense attention in float64 of every response behind a copy of its prompt."""
    checks = []
    prompt, response = scale.checked
    lengths = [response, 1, max(response // 2, 1)]
    layout = attention.layout_of([(prompt, lengths), (prompt + 3, [response])], device)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    for name, body in scale.bodies.items():
        width = body["hidden_size"] // body["num_attention_heads"]
        heads = [body["num_attention_heads"], *[body["num_key_value_heads"]] * 2]
        query, key, value = (torch.randn(1, count, layout.tokens, width, device=device).to(dtype) for count in heads)
        expected = _dense(layout, query.double(), key.double(), value.double())
        for path, attend in attention_paths(device).items():
            with torch.no_grad():
                gap = (attend(layout, query, key, value).double() - expected).abs().max().item()
            checks.append(Check(f"attention, {path}, {name}", gap, 0.05 if dtype == torch.bfloat16 else 1e-4))
    return checks


def _dense(layout, query, key, value) -> torch.Tensor:
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    allowed = torch.zeros(layout.tokens, layout.tokens, dtype=torch.bool, device=query.device)
    start = 0
    for prompt, responses in layout.groups:
        own = torch.arange(start, start + prompt, device=query.device)
        allowed[own[:, None], own] = torch.ones(prompt, prompt, dtype=torch.bool, device=query.device).tril()
        start += prompt
        for length in responses:
            row = torch.arange(start, start + length, device=query.device)
            allowed[row[:, None], own] = True
            allowed[row[:, None], row] = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
            start += length
    scores = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


def check_packed(name: str, body: dict[str, int], scale: Scale, device: str) -> list[Check]:
    """Log-probs and gradient of a packed group against padded rows: float32, and bfloat16 beside its own noise."""
    tokens = _tokens(body, *scale.checked, scale.G, device)
    checks = []
    for dtype in (torch.float32, torch.bfloat16):
        model = make_model(body, device).to(dtype)
        padded, gradient = _log_probs_and_gradient(model, padded_log_probs, *tokens)
        packed, packed_gradient = _log_probs_and_gradient(model, packed_log_probs, *tokens)
        gap = (packed - padded).abs().max().item()
        gradient_gap = ((packed_gradient - gradient).norm() / gradient.norm()).item()
        if dtype == torch.float32:
            limits = 1e-4, 1e-4
        else:
            rows = [_log_probs_and_gradient(model, padded_log_probs, tokens[0], row[None]) for row in tokens[1]]
            noise = (torch.cat([row for row, _ in rows]) - padded).abs().max().item()
            gradient_noise = ((sum(part for _, part in rows) - gradient).norm() / gradient.norm()).item()
            limits = max(2 * noise, 0.1), max(2 * gradient_noise, 0.02)
        label = f"packed group, {name} {str(dtype).removeprefix('torch.')}"
        checks += [Check(f"{label}, log-probs", gap, limits[0]), Check(f"{label}, gradient", gradient_gap, limits[1])]
        del model, gradient, packed_gradient
    return checks


def _log_probs_and_gradient(model, log_probs, tokens_P, tokens_GR) -> tuple[torch.Tensor, torch.Tensor]:
    """Detached log-probs [G, R], and the gradient of their sum by the first layer's and the last norm's parameters."""
    parameters = [*model.model.layers[0].parameters(), *model.model.norm.parameters()]
    result_GR = log_probs(model, tokens_P, tokens_GR)
    gradients = torch.autograd.grad(result_GR.sum(), parameters)
    return result_GR.detach().float(), torch.cat([gradient.float().flatten() for gradient in gradients])


def _tokens(body: dict[str, int], prompt: int, response: int, G: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((prompt,), (G, response))
    tokens_P, tokens_GR = (torch.randint(body["vocab_size"], shape, generator=generator).to(device) for shape in shapes)
    return tokens_P, tokens_GR


def time_divergence(scale: Scale, device: str) -> list[Timing]:
    """``bench divergence`` in this process."""
    timings = []
    for shape in scale.heads:
        for method in divergence_bench.METHODS:
            made = divergence_bench.measure(method, shape, device)
            peak = made["peak_mib"] if device == "cuda" else None
            what = f"divergence, G={shape.G} T={shape.T} H={shape.H} V={shape.V}: {method}"
            timings.append(Timing(what, median(made["ms"]) if made["ms"] else None, peak))
    return timings


def time_packed(name: str, body: dict[str, int], scale: Scale, device: str) -> list[Timing]:
    """Padded and packed in turns, forward, and forward with backward."""
    model = make_model(body, device)
    tokens = _tokens(body, *scale.timed, scale.G, device)

    def forward(log_probs) -> None:
        with torch.no_grad():
            log_probs(model, *tokens)

    def forward_backward(log_probs) -> None:
        model.zero_grad()
        log_probs(model, *tokens).sum().backward()

    ways = {"padded": padded_log_probs, "packed": packed_log_probs}
    shape = f"{scale.timed[0]}/{scale.timed[1]} G={scale.G}"
    calls = {
        f"{name} {shape} {step.__name__}: {way}": lambda step=step, log_probs=log_probs: step(log_probs)
        for step in (forward, forward_backward)
        for way, log_probs in ways.items()
    }
    return time_in_turns(calls, device)


def time_attention(name: str, body: dict[str, int], scale: Scale, device: str) -> list[Timing]:
    """Each path over a packed row by itself, one layer's heads, forward."""
    layout = attention.layout_of([(scale.timed[0], [scale.timed[1]] * scale.G)], device)
    shape = f"{scale.timed[0]}/{scale.timed[1]} G={scale.G}"
    width, dtype = body["hidden_size"] // body["num_attention_heads"], torch.bfloat16
    if device == "cpu":
        dtype = torch.float32
    heads = [body["num_attention_heads"], *[body["num_key_value_heads"]] * 2]
    states = [torch.randn(1, count, layout.tokens, width, device=device).to(dtype) for count in heads]

    def attended(attend) -> None:
        with torch.no_grad():
            attend(layout, *states)

    paths = attention_paths(device)
    return time_in_turns(
        {f"{name} {shape} attention: {path}": lambda a=attend: attended(a) for path, attend in paths.items()}, device
    )


def time_in_turns(calls: dict[str, Callable[[], object]], device: str) -> list[Timing]:
    """Each call once for its peak, then all of them in turns."""
    peaks: dict[str, float | None] = {}
    milliseconds: dict[str, list[float]] = {what: [] for what in calls}
    for turn in range(CALLS + 1):
        for what, call in calls.items():
            if turn and peaks[what] is None and device == "cuda":
                continue
            try:
                if not turn:
                    call()  # compiles, and starts libraries
                    peaks[what] = peak_on_gpu(call) / MIB if device == "cuda" else None
                    continue
                started = time.perf_counter()
                call()
                if device == "cuda":
                    torch.cuda.synchronize()
                milliseconds[what].append((time.perf_counter() - started) * 1e3)
            except torch.OutOfMemoryError:
                peaks[what] = None
    return [Timing(what, median(ms) if ms else None, peaks[what]) for what, ms in milliseconds.items()]


def as_table(report: dict) -> str:
    """Markdown: environment, checks, timings."""
    names = ("device", "torch", "transformers", "packed_attention")
    lines = [", ".join(f"{name} {report[name]}" for name in names) + f"; {report['seconds']:.0f} s in all", ""]
    lines += ["| check | gap | may be | |", "|---|---|---|---|"]
    for check in report["checks"]:
        passed = "passed" if check["passed"] else "FAILED"
        lines.append(f"| {check['what']} | {check['gap']:.2g} | {check['limit']:.2g} | {passed} |")
    lines += ["", "| call | ms | peak MiB |", "|---|---|---|"]
    for timing in report["timings"]:
        ms = "out of memory" if timing["ms"] is None else f"{timing['ms']:.2f}"
        peak = "-" if timing["peak_mib"] is None else f"{timing['peak_mib']:.0f}"
        lines.append(f"| {timing['what']} | {ms} | {peak} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
