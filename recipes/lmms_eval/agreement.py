"""What lmms-eval's rules for MVBench and MMVU give the authors' responses in tests/released, as a file for a test.

    python recipes/lmms_eval/agreement.py tests/released/lmms_eval_scores.json

needs lmms-eval (0.7.3 wrote the file). MMVU's options are not in tests/released, so its rule that looks for an option's
text in a response has nothing to look for; the rules for letters are all in use.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

from lmms_eval.tasks.mmvu.utils import evaluate_with_rule_based
from lmms_eval.tasks.mvbench.utils import mcq_acc

RELEASED = Path(__file__).resolve().parents[2] / "tests" / "released"
FILES = ("mvbench_zeroshot", "mmvu_zeroshot", "mmvu_twgrpo_ckpt500", "mmvu_videochatr1")


def right(file: str, truth: str, response: str) -> int:
    """1 for a response that lmms-eval counts as right."""
    if file.startswith("mvbench"):
        return int(mcq_acc(truth, response))
    question = {"answer": truth, "question_type": "multiple-choice", "choices": {}}
    return int(evaluate_with_rule_based(question, response))


def main(out: str) -> None:
    """Write the scores by file, in the order of its rows."""
    scores = {}
    for file in FILES:
        rows = [json.loads(line) for line in (RELEASED / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()]
        truths = [row["ground_truth"].removeprefix("<answer>").removesuffix("</answer>").strip() for row in rows]
        scores[file] = [right(file, truth, row["model_output"]) for truth, row in zip(truths, rows, strict=True)]
    written = {"lmms_eval": metadata.version("lmms-eval"), "scores": scores}
    Path(out).write_text(json.dumps(written) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
