"""``verl-twgrpo parity MODEL``: one prompt through the processor, vLLM and the actor, as training would have it."""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

from verl_twgrpo.files import write_json
from verl_twgrpo.parity.quiet import kept_quiet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A checkpoint, and which prompt."""
    parser.add_argument("model", metavar="MODEL", help="folder of a Hugging Face checkpoint, or a hub name")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--video", nargs="+", type=Path, metavar="FILE", help="ask about these videos, in one prompt")
    source.add_argument("--data", type=Path, metavar="PARQUET", help="take a row of this file, as training reads it")
    parser.add_argument("--row", type=int, help="which row of --data (default: the first, 0)")
    parser.add_argument("--max-tokens", type=int, default=64, help="length of the response (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="F", help="write what was found to this file")


def run(args: argparse.Namespace) -> int:
    """Print one screen; 1 if rollout and actor differ, or see another time than the video's.

    Raises ``ValueError`` or ``FileNotFoundError`` for a row, file or model that is not there.
    """
    from verl_twgrpo.parity.prompts import row_of_parquet, row_of_videos, write_video

    if args.row is not None and args.data is None:
        raise ValueError("--row: give --data as well, the parquet file whose row is meant")
    if args.max_tokens < 1:
        raise ValueError(f"--max-tokens {args.max_tokens}: need 1 or more")
    _check_folder(args.model)
    with TemporaryDirectory() as folder:
        if args.data:
            row, what = row_of_parquet(args.data, args.row or 0), f"row {args.row or 0} of {args.data}"
        elif args.video:
            row, what = row_of_videos(args.video), ", ".join(map(str, args.video))
        else:
            row, what = row_of_videos([write_video(Path(folder) / "square.mp4")]), "a video made for this"
        settle_environment()
        started = time.perf_counter()
        with kept_quiet():
            from verl_twgrpo.parity.sides import look

            seen = look(args.model, row, args.max_tokens)
    print(f"model      {args.model} ({seen.model_type}, {seen.dtype})")
    print(f"prompt     {what}")
    for line in seen.lines():
        print(line)
    print(f"{time.perf_counter() - started:.0f} s")
    if args.json:
        write_json(args.json, seen.comparison.as_json())
    return 1 if seen.comparison.differences else 0


def _check_folder(model: str) -> None:
    """Raises ``FileNotFoundError`` for a local path without a checkpoint; hub names are left to transformers."""
    folder = Path(model).expanduser()
    if not (folder / "config.json").is_file() and (folder.exists() or model.count("/") != 1 or model[0] in "./~"):
        raise FileNotFoundError(f"{model}: no checkpoint (config.json) there; give a folder or a hub name")


def settle_environment() -> None:
    """Variables that verl and vLLM read on import: little talk, and on a CPU little memory; those that are set stay."""
    for name, value in {"VLLM_LOGGING_LEVEL": "ERROR", "VERL_LOGGING_LEVEL": "ERROR", "TQDM_DISABLE": "1"}.items():
        os.environ.setdefault(name, value)
    # GiB, and no binding to cores: vLLM on a CPU takes half of the memory and all cores otherwise
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    warnings.simplefilter("ignore")
