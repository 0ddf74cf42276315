"""``verl-twgrpo bench reward``: rollouts per second that one reward worker scores, on a corpus that it makes itself.

And for every task how long a megabyte of the worst text takes: a response that never ends must not hold up a step; and
whether any of many random texts raises, or scores outside of what the task can pay.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from verl_twgrpo.progress import Progress
from verl_twgrpo.rewards.scoring import compute_score

SENTENCE = "the red cube moves towards the blue sphere and collides with the rubber cylinder before it leaves ."
ANSWERS = ("<answer>{}</answer>", "<answer>{},</answer>", "<answer> {} </answer>", "Final answer: {}", "{}")
PASSES = 5

MEGABYTE = 1_000_000
FILLERS = ["<answer>", "</answer>", "<answer></answer>", "<answer>A</answer>", "<think>", "</think>", "<think></think>"]
FILLERS += ["<", "</", "answer>", "A,", "A", "a ", " ", " , ", "\n", "! ", "(", "(A", "A. x\n", "A.\n", "and ", ";"]
FILLERS += ["\x00", "\u200f", "\u202e", "Ａ，", "、", "\u00a0", "final answer:", "答案：", "\ud800"]
FILLERS += [
    "1",
    "1.",
    "1:",
    "1e",
    "-",
    "[",
    "[[",
    "[1,2],",
    "[0,0,1,1],",
    "]",
    "<glue>",
    "1 to ",
    "->",
    "yes ",
    "ß",
    "ﷺ",
]
"""What an adversary repeats."""
PLACES = ["{}", "<think>x</think><answer>{}</answer>", "<think>x</think><answer>A{}</answer>", "{}<answer>A</answer>"]
PLACES += [
    "<think>{}</think><answer>A</answer>",
    "<think>x</think><answer>A</answer>{}",
    "<answer>{}</b>",
    "<answer>{}",
]
PLACES += ["<answer>A</answer><glue>{}</glue>"]
"""Where in a response."""

TRUTHS: dict[str, Any] = {
    "multiple_choice": "A,C",
    "temporal_grounding": {"intervals": [[2, 4], [7.5, 9]], "duration": 20},
    "grounded_qa": {"letters": "C", "intervals": [[2, 4], [7.5, 9]], "duration": 20},
    "tracking": {"boxes": [[0.1, 0.1, 0.5, 0.5]] * 8, "coordinates": "normalised"},
    "spatial_grounding": {"boxes": [[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.8]], "coordinates": "normalised"},
    "numeric": 12.5,
    "regression": 12.5,
    "counting": 7,
    "boolean": "yes",
    "ordering": ["B", "A", "C"],
    "ocr": "No parking, 8 am to 6 pm",
    "open_ended": "A man opens the door and leaves the house.",
}
"""A truth of every task that is measured."""


def make_corpus(n_rollouts: int, n_words: int, seed: int) -> list[dict[str, Any]]:
    """Rollouts as ``compute_score`` takes them: ``n_words`` of thinking on average, well-formed answers and others."""
    draw = random.Random(seed)
    corpus = []
    for index in range(n_rollouts):
        thinking = " ".join(draw.choices(SENTENCE.split(), k=draw.randint(n_words // 2, n_words * 3 // 2)))
        letters = ", ".join(sorted(draw.sample("ABCD", draw.randint(1, 4))))
        corpus.append(
            {
                "data_source": "bench",
                "solution_str": f"<think>\n{thinking}\n</think>\n{draw.choice(ANSWERS).format(letters)}",
                "ground_truth": ",".join(sorted(draw.sample("ABCD", draw.randint(1, 3)))),
                "extra_info": {"id": str(index), "options": ["first", "second", "third", "fourth"]},
            }
        )
    return corpus


def make_tokenizer(texts: list[str]) -> Any:
    """A byte-level BPE tokenizer learnt from the texts, as a transformers fast tokenizer: nothing is downloaded."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=2000, show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer)


def worker_pass(corpus: list[dict[str, Any]]) -> Callable[[], None]:
    """One pass of verl's reward worker over the corpus, from token ids to scores, without Ray."""
    import torch
    from omegaconf import OmegaConf
    from verl import DataProto

    from verl_twgrpo.rewards.manager import MultiAnswerRewardManager

    tokenizer = make_tokenizer([rollout["solution_str"] for rollout in corpus[:100]])
    manager = MultiAnswerRewardManager(OmegaConf.create({"reward": {}}), tokenizer)
    rows = []
    for rollout in corpus:
        response_ids_1T = torch.tensor([tokenizer.encode(rollout["solution_str"])])
        rows.append(
            DataProto.from_dict(
                tensors={"responses": response_ids_1T, "attention_mask": torch.ones_like(response_ids_1T)},
                non_tensors={
                    "data_source": [rollout["data_source"]],
                    "reward_model": [{"ground_truth": rollout["ground_truth"]}],
                    "extra_info": [rollout["extra_info"]],
                },
            )
        )

    async def score_all() -> None:
        await asyncio.gather(*map(manager.run_single, rows))

    return lambda: asyncio.run(score_all())


def measure(one_pass: Callable[[], object], n_rollouts: int) -> list[float]:
    """Rollouts per second of each of ``PASSES`` passes after one warm-up, lowest first."""
    one_pass()
    rates = []
    for _ in range(PASSES):
        start = time.perf_counter()
        one_pass()
        rates.append(n_rollouts / (time.perf_counter() - start))
    return sorted(rates)


def worst_megabyte(task: str) -> tuple[float, str]:
    """Processor milliseconds of the slowest megabyte for ``task``, every leniency on, and what was repeated there."""
    from verl_twgrpo.rewards import score

    slowest = (0.0, "")
    for filler in FILLERS:
        text = (filler * (MEGABYTE // len(filler) + 1))[:MEGABYTE]
        for place in PLACES:
            response = place.format(text)
            start = time.process_time()
            score(task, response, TRUTHS[task], {"lenient": True, "strict_format": True})
            slowest = max(slowest, (1000 * (time.process_time() - start), place.format(filler)))
    return slowest


def fuzzed(task: str, count: int, seed: int) -> Iterator[str]:
    """Random responses: pieces of what an adversary repeats, and gold answers with some characters changed."""
    from verl_twgrpo.rewards import TASKS

    draw = random.Random(f"{seed}/{task}")
    rules = TASKS[task]
    gold = "<think>x</think>" + rules.gold(rules.read_truth(TRUTHS[task], {}, "truth"))
    for _ in range(count):
        if draw.random() < 0.5:
            pieces = (draw.choice(FILLERS) for _ in range(draw.randint(0, 12)))
            yield draw.choice(PLACES).format("".join(pieces))
            continue
        characters = list(gold)
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(len(characters) + 1)
            changed = draw.choice(["", draw.choice("0123456789.,:-[]<>/ \n"), chr(draw.randrange(0x11000))])
            characters[place : place + draw.randint(0, 2)] = changed
        yield "".join(characters)


def fuzz(task: str, count: int, seed: int) -> list[str]:
    """What went wrong with ``count`` random responses, and the response: an exception, or scores that cannot be."""
    from verl_twgrpo.rewards import score

    wrong = []
    for text in fuzzed(task, count, seed):
        try:
            scores = score(task, text, TRUTHS[task])
        except Exception as error:  # that there is none is what is measured
            wrong.append(f"{type(error).__name__}: {error}: {ascii(text)}")
            continue
        limits = {"score": 2.0, "accuracy": 1.0, "soft_accuracy": 1.0, "format": 1.0}
        if any(not 0 <= (scores[name] or 0.0) <= limit for name, limit in limits.items()):
            wrong.append(f"scores {scores}: {ascii(text)}")
    return wrong


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rollouts", type=int, default=2000, help="rollouts in the corpus (default: %(default)s)")
    parser.add_argument("--words", type=int, default=200, help="mean words of thinking (default: %(default)s)")
    parser.add_argument(
        "--megabyte", action="store_true", help="measure a megabyte of the worst text for each task too"
    )
    parser.add_argument("--fuzz", type=int, default=0, metavar="N", help="score N random texts for each task too")
    parser.add_argument(
        "--task",
        nargs="+",
        choices=sorted(TRUTHS),
        default=list(TRUTHS),
        metavar="TASK",
        help="tasks for --megabyte and --fuzz (default: all)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all texts (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Print the rates; exit code 1 if a random text went wrong. Raises ``ValueError`` for an empty corpus."""
    for name in ("rollouts", "words"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name}: {getattr(args, name)} is too small, need at least 1")
    corpus = make_corpus(args.rollouts, args.words, args.seed)
    passes: dict[str, Callable[[], object]] = {
        "compute_score, strict": lambda: [compute_score(**rollout) for rollout in corpus],
        "compute_score, lenient": lambda: [compute_score(**rollout, lenient=True) for rollout in corpus],
        "manager, token ids to scores": worker_pass(corpus),
    }
    n_chars = statistics.mean(len(rollout["solution_str"]) for rollout in corpus)
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    print(f"{args.rollouts} rollouts of {n_chars:.0f} characters on average; one worker is one process ({machine})")
    print(f"{'':30}{'rollouts/s: median':>20}{'lowest':>10}{'highest':>10}")
    for name, one_pass in passes.items():
        rates = measure(one_pass, args.rollouts)
        print(f"{name:30}{statistics.median(rates):>20,.0f}{rates[0]:>10,.0f}{rates[-1]:>10,.0f}")
    if args.megabyte:
        print(f"\n{'a megabyte of the worst text':30}{'ms':>20}  text, repeated")
        for task in args.task:
            milliseconds, text = worst_megabyte(task)
            print(f"{task:30}{milliseconds:>20.1f}  {ascii(text)}")
    found = 0
    if args.fuzz:
        print(f"\n{'random texts':30}{'scored':>20}{'wrong':>10}")
        with Progress(len(args.task), "random texts", "task") as progress:
            for task in args.task:
                wrong = fuzz(task, args.fuzz, args.seed)
                found += len(wrong)
                print(f"{task:30}{args.fuzz:>20,}{len(wrong):>10,}{'  ' + wrong[0] if wrong else ''}")
                progress.advance()
    return 1 if found else 0
