"""``verl-twgrpo demo prepare``: videos and questions, then a tiny checkpoint that has learnt to answer in format."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from verl_twgrpo.data.schema import Item
from verl_twgrpo.files import ensure_same_settings, write_json

SPLITS = ("train", "validation")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder to fill, and how much of everything."""
    parser.add_argument("--out", type=Path, default=Path("outputs/demo"), help="folder for data/ and model/")
    parser.add_argument("--train", type=int, default=200, help="training questions, each with its own video")
    parser.add_argument("--validation", type=int, default=100, help="validation questions, from other worlds")
    parser.add_argument(
        "--shown-steps", type=int, default=350, help="warm start: steps that teach to see and to answer"
    )
    parser.add_argument("--slip-steps", type=int, default=60, help="warm start: steps that teach to do it carelessly")
    parser.add_argument(
        "--tasks", action="store_true", help="questions of other tasks: when do two objects meet, how many pairs do"
    )
    parser.add_argument(
        "--moment-steps", type=int, default=400, help="with --tasks: steps of the warm start (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of worlds, weights and warm start")
    parser.add_argument("--data-only", action="store_true", help="questions and videos without the checkpoint")


def run(args: argparse.Namespace) -> int:
    """Make what is not there yet.

    Raises ``ValueError`` if a part is there that was made with other settings.
    """
    from verl_twgrpo.mini_clevrer.world import moments, shown

    data = {split: getattr(args, split) for split in SPLITS} | {"seed": args.seed}
    generate = moments.generate if args.tasks else shown.generate
    # as before for the demo's own questions, whose record names no kind
    record = data | {"questions": "tasks"} if args.tasks else data
    once(args.out, "data", record, lambda folder: make_data(folder, data, generate))
    if args.data_only:
        return 0
    from verl_twgrpo.mini_clevrer.model.tokenizer import task_phrases
    from verl_twgrpo.mini_clevrer.model.warm_start import MomentsStart, WarmStart

    # mostly right, often without the answer's tags: with more wrong verdicts some seeds learnt to name one letter
    steps = {"shown_steps": args.shown_steps, "slip_steps": args.slip_steps}
    plan = WarmStart(**steps, worlds=0, slips=0.2, untagged=0.3, seed=args.seed)
    phrases: tuple[str, ...] = ()
    if args.tasks:
        plan = MomentsStart(moment_steps=args.moment_steps, worlds=0, slips=0.3, untagged=0.3, seed=args.seed)
        phrases = task_phrases()
    once(args.out, "model", asdict(plan), lambda folder: make_model(folder, plan, phrases))
    return 0


def once(out: Path, part: str, settings: dict[str, Any], make: Callable[[Path], None]) -> None:
    """Make ``out/part`` unless its settings, written when it is complete, say that it is there."""
    folder, record = out / part, out / f"{part}.json"
    settings = json.loads(json.dumps(settings))
    if record.exists() and folder.is_dir():
        ensure_same_settings(folder, json.loads(record.read_text()), settings)
        print(f"{folder}: there already")
        return
    start = time.perf_counter()
    make(folder)
    write_json(record, settings)
    print(f"{folder}: made in {time.perf_counter() - start:.0f} s", flush=True)


def make_data(folder: Path, settings: dict[str, int], generate: Callable[..., list[Item]]) -> None:
    """Questions and videos of every split; ``settings`` says how many of each, and "seed".

    ``generate(folder, split, count, seed)`` makes them: ``world.generate``, or ``world.shown.generate``.
    """
    import datasets

    from verl_twgrpo.data.parquet import FrameLimits, write_parquet
    from verl_twgrpo.mini_clevrer.world.render import FRAMES, SIZE
    from verl_twgrpo.rewards import validate

    datasets.disable_progress_bars()
    limits = FrameLimits(nframes=FRAMES, min_pixels=SIZE * SIZE, max_pixels=SIZE * SIZE)
    for split in SPLITS:
        items = generate(folder, split, settings[split], settings["seed"])
        # of an earlier run that was stopped, with other settings
        for stale in set((folder / "videos" / split).glob("*.mp4")) - {Path(item.video) for item in items}:
            stale.unlink()
        validate(items)
        path = write_parquet(items, folder / f"{split}.parquet", limits=limits, force=True)
        dropped = sum(item.provenance["dropped"] for item in items)
        print(f"{path}: {len(items)} questions, {dropped} without a true option dropped", flush=True)


def make_model(folder: Path, plan: Any, phrases: Sequence[str] = ()) -> None:
    """A checkpoint of the tiny model after its warm start (a ``WarmStart``); ``phrases`` are tokens of their own."""
    from transformers.utils import logging

    from verl_twgrpo.mini_clevrer.model.checkpoint import build_model, build_processor, write_checkpoint
    from verl_twgrpo.mini_clevrer.model.warm_start import warm_start

    logging.disable_progress_bar()
    processor = build_processor(phrases)
    model = build_model(processor, plan.seed)
    print(f"{folder}: warm start of {model.num_parameters() / 1e6:.2f} million parameters", flush=True)
    warm_start(model, processor, plan, report=lambda line: print(line, flush=True))
    write_checkpoint(model, processor, folder)
