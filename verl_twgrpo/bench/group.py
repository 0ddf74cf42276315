"""``verl-twgrpo bench group``: a group's responses behind one copy of their prompt, against one copy each.

``padded`` is verl's way: G rows of prompt and response, logits of every token. ``packed`` is what the engine does under
``algorithm.packed_groups``: one row, attention by blocks, logits of response positions only. Both run a random text
body over the same tokens; a forward pass without gradient, and a forward and backward pass. In each case the two ways
are two fresh processes that take turns call by call, so that a load on the machine hurts both alike.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from verl_twgrpo.bench.device import add_device, check_device
from verl_twgrpo.bench.memory import MIB, peak_on_cpu, peak_on_gpu
from verl_twgrpo.files import write_csv
from verl_twgrpo.torchvision_ops import declare_missing_ops

WAYS = ("padded", "packed")
PASSES = ("forward", "forward_backward")
SHAPES = ("128/64", "512/128", "1180/250")
GROUP_SIZES = (4, 8, 16)
# of each way and case, after the one in which memory is measured
CALLS = 3

# Text bodies. "small" has 14 million parameters in the proportions of Qwen2.5's: it fits a CPU at 22,880 tokens. The
# others have four layers of Qwen2.5-VL-3B's and 7B's, and their heads (config.json of huggingface.co/Qwen).
SMALL = {
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 1408,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
BODIES = {
    "small": SMALL,
    "3b": SMALL
    | {
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
    },
    "7b": SMALL
    | {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
}


@dataclass(frozen=True)
class Measurement:
    """One line of the CSV.

    shape: tokens of the prompt / of each response. G: responses. seconds: of the fastest call (other load on the
    machine only adds time). ratio: padded over packed. peak_mib: above model and tokens. max_gap: of the responses'
    log-probs, in nats.
    """

    shape: str
    G: int
    # "forward" or "forward_backward"; the column is called pass, a word of Python's
    pass_: str
    seconds_padded: float
    seconds_packed: float
    ratio: float
    peak_mib_padded: float
    peak_mib_packed: float
    max_gap: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``verl-twgrpo bench group``."""
    parser.add_argument("--csv", type=Path, metavar="F", help="write the measurements to this file")
    parser.add_argument("--plot", type=Path, metavar="F", help="draw them into this file (png, pdf, svg)")
    parser.add_argument("--shape", action="append", metavar="P/R", help=f"only this shape, repeatable ({SHAPES})")
    parser.add_argument("--group-size", action="append", type=int, metavar="G", help=f"repeatable {GROUP_SIZES}")
    parser.add_argument("--body", choices=BODIES, help="text model: small on the processor, 3b on a GPU")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Measures the grid and prints a line per case.

    Raises:
        ValueError: a shape that is not P/R with numbers of 1 or more.
    """
    check_device(args.device)
    shapes, sizes = args.shape or SHAPES, args.group_size or GROUP_SIZES
    for shape in shapes:
        read_shape(shape)
    print(f"{'shape':<10}{'G':>4}  {'pass':<18}{'padded s':>10}{'packed s':>10}{'ratio':>7}{'MiB':>16}{'max gap':>10}")
    measurements = []
    body = args.body or ("3b" if args.device == "cuda" else "small")
    for shape in shapes:
        for G in sizes:
            for pass_ in PASSES:
                m = measure_case(shape, G, pass_, args.device, body)
                measurements.append(m)
                memory = f"{m.peak_mib_padded:.0f} -> {m.peak_mib_packed:.0f}"
                print(
                    f"{shape:<10}{G:>4}  {pass_:<18}{m.seconds_padded:>10.3f}{m.seconds_packed:>10.3f}{m.ratio:>7.2f}"
                    f"{memory:>16}{m.max_gap:>10.1e}",
                    flush=True,
                )
    if args.csv:
        write_csv(args.csv, map(columns, measurements))
    if args.plot:
        draw(measurements, args.plot)
    return 0


def read_shape(shape: str) -> tuple[int, int]:
    """Prompt's and response's tokens of "P/R"."""
    numbers = shape.split("/")
    if len(numbers) != 2 or not all(number.isdigit() and int(number) > 0 for number in numbers):
        raise ValueError(f"bench group --shape {shape}: need tokens of the prompt / of a response, such as 1180/250")
    return int(numbers[0]), int(numbers[1])


def measure_case(shape: str, G: int, pass_: str, device: str = "cpu", body: str = "small") -> Measurement:
    """Both ways at one case, in turns, each in a process of its own.

    Raises ChildProcessError with the end of the process's output if one fails.
    """
    case = {"shape": shape, "G": G, "pass_": pass_, "device": device, "body": body}
    with ExitStack() as stack:
        processes = {way: stack.enter_context(_Process(case | {"way": way})) for way in WAYS}
        first = {way: process.call() for way, process in processes.items()}
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for turn in range(CALLS):
            # neither always goes first
            for way in WAYS if turn % 2 == 0 else WAYS[::-1]:
                seconds[way].append(processes[way].call()["seconds"])
    fastest = {way: min(times) for way, times in seconds.items()}
    gaps = [abs(a - b) for a, b in zip(*(first[way]["log_probs"] for way in WAYS), strict=True)]
    return Measurement(
        shape,
        G,
        pass_,
        fastest["padded"],
        fastest["packed"],
        fastest["padded"] / fastest["packed"],
        first["padded"]["peak_mib"],
        first["packed"]["peak_mib"],
        max(gaps),
    )


def columns(m: Measurement) -> dict[str, Any]:
    """A measurement as a line of the CSV."""
    return {name.rstrip("_"): value for name, value in asdict(m).items()}


def draw(measurements: list[Measurement], path: Path) -> None:
    """Ratio of times by group size, a line per shape and a panel per pass."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(PASSES), figsize=(10, 4), sharey=True)
    for axis, pass_ in zip(axes, PASSES, strict=True):
        for shape in dict.fromkeys(m.shape for m in measurements):
            of_shape = [m for m in measurements if (m.shape, m.pass_) == (shape, pass_)]
            prompt, response = read_shape(shape)
            (line,) = axis.plot([m.G for m in of_shape], [m.ratio for m in of_shape], "o-", label=shape)
            tokens = [m.G * (prompt + response) / (prompt + m.G * response) for m in of_shape]
            axis.plot([m.G for m in of_shape], tokens, ":", color=line.get_color())
        axis.axhline(1, color="grey", linewidth=0.8)
        axis.set_title(pass_.replace("_", " and "))
        axis.set_xlabel("responses of a group")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("time padded / time packed (dotted: tokens)")
    axes[0].legend(title="prompt / response")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def make_model(body: dict[str, int], device: str) -> torch.nn.Module:
    """A random model of that body; in bfloat16 on a GPU."""
    declare_missing_ops()
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    # made where it will be: random numbers for a head of 7B take a processor half a minute
    with torch.device(device):
        config = Qwen2Config(**body, attn_implementation="sdpa", initializer_range=1.6 / body["hidden_size"] ** 0.5)
        model = Qwen2ForCausalLM(config).eval()
    return model.to(torch.bfloat16 if device == "cuda" else torch.float32)


def serve(way: str, shape: str, G: int, pass_: str, device: str, body: str, lines: Iterable[str]) -> Iterator[dict]:
    """One call of one way for every line.

    Yields of the first call its peak_mib and the log_probs [G * R], of the others their seconds.
    """
    prompt, response = read_shape(shape)
    log_probs = {"padded": padded_log_probs, "packed": packed_log_probs}[way]
    model = make_model(BODIES[body], device)
    generator = torch.Generator().manual_seed(0)
    vocabulary = BODIES[body]["vocab_size"]
    tokens_P = torch.randint(vocabulary, (prompt,), generator=generator).to(device)
    tokens_GR = torch.randint(vocabulary, (G, response), generator=generator).to(device)
    # libraries and thread pools start before anything is measured
    log_probs(model, tokens_P[:2], tokens_GR[:1, :2])
    weights_GR = torch.linspace(-1, 1, G * response, device=device).view(G, response)
    outputs: list[torch.Tensor] = []

    def call() -> None:
        with torch.set_grad_enabled(pass_ == "forward_backward"):
            result_GR = log_probs(model, tokens_P, tokens_GR)
        if pass_ == "forward_backward":
            model.zero_grad()
            (result_GR * weights_GR).sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        outputs[:] = [result_GR.detach()]

    for number, _ in enumerate(lines):
        if number == 0:
            peak = (peak_on_gpu if device == "cuda" else peak_on_cpu)(call)
            yield {"peak_mib": peak / MIB, "log_probs": outputs[0].float().flatten().tolist()}
            continue
        started = time.perf_counter()
        call()
        yield {"seconds": time.perf_counter() - started}


def padded_log_probs(model: torch.nn.Module, tokens_P: torch.Tensor, tokens_GR: torch.Tensor) -> torch.Tensor:
    """Log-probs [G, R] from rows of prompt and response, the logits of all of them, as verl's engine computes them."""
    model.config._attn_implementation = "sdpa"
    tokens_GS = torch.cat([tokens_P.expand(len(tokens_GR), -1), tokens_GR], dim=1)
    logits_GSV = model(input_ids=tokens_GS, use_cache=False).logits
    labels_GS = tokens_GS.roll(-1, dims=1)
    taken_GS = logits_GSV.float().gather(2, labels_GS[..., None])[..., 0] - logits_GSV.float().logsumexp(-1)
    return taken_GS[:, len(tokens_P) - 1 : -1]


def packed_log_probs(model: torch.nn.Module, tokens_P: torch.Tensor, tokens_GR: torch.Tensor) -> torch.Tensor:
    """The same from one packed row, the logits of response positions only."""
    from verl_twgrpo.training.engines.packed_attention import PACKED_ATTENTION, set_layout
    from verl_twgrpo.training.engines.packing import Lengths, pack

    G, R = tokens_GR.shape
    P, device = len(tokens_P), tokens_P.device
    packed = pack([0] * G, Lengths([P] * G, [R] * G), device)
    rows_N = torch.cat([tokens_P.expand(G, -1), tokens_GR], dim=1).flatten()
    positions_N = torch.arange(P + R, device=device).repeat(G)
    model.config._attn_implementation = PACKED_ATTENTION
    set_layout(packed.layout)
    hidden_1SH = model.model(
        input_ids=rows_N[packed.token_S][None], position_ids=positions_N[packed.token_S][None], use_cache=False
    ).last_hidden_state
    logits_NV = model.lm_head(hidden_1SH[0, packed.predicts_N]).float()
    targets_N1 = rows_N[packed.target_N][:, None]
    return (logits_NV.gather(1, targets_N1)[:, 0] - logits_NV.logsumexp(-1)).view(G, R)


class _Process:
    """One way at one case in a process that makes a call whenever it is asked."""

    def __init__(self, case: dict) -> None:
        self.case = case

    def __enter__(self) -> _Process:
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "verl_twgrpo.bench.group", json.dumps(self.case)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def call(self) -> dict:
        """What ``serve`` yields."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):  # the end of its output says why
            print(file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise ChildProcessError(f"bench: {self.case} failed: {self._errors.read().strip()[-2000:]}")
        return json.loads(line)


if __name__ == "__main__":
    for result in serve(**json.loads(sys.argv[1]), lines=sys.stdin):
        print(json.dumps(result), flush=True)
