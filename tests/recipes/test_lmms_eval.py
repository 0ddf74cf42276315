"""lmms-eval's task files for our data, and its scores of the authors' responses beside ours."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

from verl_twgrpo.data.parquet import FrameLimits, to_row
from verl_twgrpo.data.schema import Item
from verl_twgrpo.rewards import compute_score

ROOT = Path(__file__).resolve().parents[2]
FOLDER, RELEASED = ROOT / "recipes" / "lmms_eval", ROOT / "tests" / "released"
STORED = json.loads((RELEASED / "lmms_eval_scores.json").read_text())["scores"]


@pytest.fixture(scope="module")
def utils():
    spec = importlib.util.spec_from_file_location("lmms_eval_utils", FOLDER / "utils.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["mini_clevrer", "clevrer_counterfactual"])
def test_a_task_file_has_what_lmms_eval_reads_and_names_functions_that_are_there(name, utils):
    class Loader(yaml.SafeLoader):
        pass

    # as lmms-eval does: module and function, beside the file
    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    task = yaml.load((FOLDER / f"{name}.yaml").read_text(), Loader)
    assert task["task"] == name and task["output_type"] == "generate_until" and task["dataset_path"] == "parquet"
    assert task["test_split"] in task["dataset_kwargs"]["data_files"]
    for key in ("doc_to_visual", "doc_to_text", "doc_to_target", "process_results"):
        module, function = task[key].split(".")
        assert module == "utils" and callable(getattr(utils, function))
    assert {metric["metric"] for metric in task["metric_list"]} == {"strict_accuracy", "soft_accuracy"}


def test_its_functions_take_our_rows(utils):
    item = Item("1", "clevrer", "validation", "What?", ("this", "that", "it"), frozenset("AC"), "/videos/v.mp4")
    doc = to_row(item, 0, FrameLimits())
    assert utils.videos(doc) == ["/videos/v.mp4"] and utils.letters(doc) == "A,C"
    assert utils.question(doc).startswith("What?\nA this")
    assert utils.scores(doc, ["<think>x</think><answer>A, C</answer>"]) == {"strict_accuracy": 1, "soft_accuracy": 1}
    assert utils.scores(doc, ["A"]) == {"strict_accuracy": 0, "soft_accuracy": 0.5}


def both(file):
    """Truth, response, our accuracy as `verl-twgrpo eval` reads it, and lmms-eval's."""
    rows = [json.loads(line) for line in (RELEASED / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()]
    for row, theirs in zip(rows, STORED[file], strict=True):
        truth = row["ground_truth"].removeprefix("<answer>").removesuffix("</answer>").strip()
        ours = compute_score("x", row["model_output"], truth, {}, lenient=["bare"])["accuracy"]
        yield truth, row["model_output"], int(ours), theirs


@pytest.mark.parametrize("file", ["mvbench_zeroshot", "mmvu_zeroshot"])
def test_bare_letters_of_mvbench_and_mmvu_are_scored_as_lmms_eval_does(file):
    assert [ours for _, _, ours, _ in both(file)] == STORED[file]


@pytest.mark.parametrize(("file", "more"), [("mmvu_twgrpo_ckpt500", 7), ("mmvu_videochatr1", 2)])
def test_of_responses_that_think_lmms_eval_counts_letters_outside_of_the_answer_too(file, more):
    different = [(truth, text) for truth, text, ours, theirs in both(file) if ours != theirs]
    assert len(different) == sum(STORED[file]) - sum(ours for _, _, ours, _ in both(file)) == more
    for truth, text in different:
        answer = re.search("<answer>(.*?)</answer>", text)[1].strip()
        # another letter is answered; the true one, mostly the article "a", stands in the thinking
        assert answer != truth and re.search(rf"\b{truth}\b", text.replace(f"<answer>{answer}", ""), re.IGNORECASE)
