"""``--device`` of the benchmarks."""

from __future__ import annotations

import argparse


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device cpu`` (the default) or ``cuda``."""
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="cuda computes in bfloat16")


def check_device(device: str) -> None:
    """Raises ``ValueError`` for cuda where torch has no GPU."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"--device cuda: torch {torch.__version__} sees no GPU here; leave it out to measure on the processor"
        )
