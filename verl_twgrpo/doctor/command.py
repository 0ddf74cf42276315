"""``verl-twgrpo doctor``: one screen that says whether training could start here, and what to do if not."""

from __future__ import annotations

import argparse
import json
import os
import warnings
from dataclasses import asdict

from verl_twgrpo.doctor.checks import CHECKS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose environment: this process's, or every node's of a Ray cluster."""
    parser.add_argument(
        "--ray",
        nargs="?",
        const="auto",
        metavar="ADDRESS",
        help="check every node of the Ray cluster that runs at ADDRESS (without one: RAY_ADDRESS, or the one here)",
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON, for programs")


def run(args: argparse.Namespace) -> int:
    """Print the findings; 1 if one of them would keep training from starting.

    Raises ``ValueError`` if ``--ray`` finds no cluster.
    """
    # other people's warnings and progress are not part of the screen
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    warnings.simplefilter("ignore")
    if args.ray:
        from verl_twgrpo.doctor.cluster import check_cluster

        return check_cluster(args.ray, args.json)
    found = {title: list(look()) for title, look in CHECKS.items()}
    problems = [finding for findings in found.values() for finding in findings if finding.to_do]
    if args.json:
        print(json.dumps({title: [asdict(finding) for finding in findings] for title, findings in found.items()}))
        return 1 if problems else 0
    for title, findings in found.items():
        print(title)
        for finding in findings:
            mark = "!!" if finding.to_do else "ok"
            print(f"  {mark} {finding.what:<26} {finding.value}")
            if finding.to_do:
                print(f"     -> {finding.to_do}")
    print("before training, per model: verl-twgrpo parity MODEL (do rollout and actor see a video alike?)")
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    print(f"not ready: {count}, marked !!" if problems else "ready: training can start")
    return 1 if problems else 0
