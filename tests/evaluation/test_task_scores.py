"""``verl-twgrpo eval`` on rows of other tasks than multiple choice: every measure, its interval, and two models."""

from __future__ import annotations

import argparse
import itertools
import json

import numpy as np
import pytest

from verl_twgrpo.evaluation import command, compare_tasks, evaluate_tasks, read_predictions, score_rows, sign_flip

GROUNDING = {"task": "temporal_grounding", "gts": json.dumps({"intervals": [[2, 6]], "duration": 10})}
GROUNDED = {"task": "grounded_qa", "gts": json.dumps({"letters": "C", "intervals": [[2, 6]], "duration": 10})}


def write(path, *rows):
    common = {"input": "q", "step": 4, "benchmark": "own"}
    path.write_text("".join(json.dumps(common | {"id": str(k)} | row) + "\n" for k, row in enumerate(rows)))
    return path


def answers(kind, *texts):
    return [kind | {"output": f"<answer>{text}</answer>"} for text in texts]


def evaluated(path):
    return evaluate_tasks(score_rows(read_predictions([path]).rows))


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def means(score):
    return {name: measure.mean for name, measure in score.measures.items()}


def test_temporal_grounding_has_miou_and_recall(tmp_path):
    # tIoU 1, 0.5, 0.4, no answer
    path = write(tmp_path / "4.jsonl", *answers(GROUNDING, "2 to 6", "2 to 4", "0 to 10", "soon"))
    score = evaluated(path)["own"]["temporal_grounding"]
    assert (score.n, score.unparsable) == (4, 1)
    found = means(score)
    assert found["iou"] == pytest.approx(1.9 / 4)
    assert [found[f"recall_{at}"] for at in (0.3, 0.5, 0.7)] == [0.75, 0.5, 0.25]
    assert found["accuracy"] == 0.5
    low, high = score.measures["recall_0.5"].low, score.measures["recall_0.5"].high
    assert (round(low, 4), round(high, 4)) == (0.15, 0.85)  # Wilson's interval of 2 out of 4, by hand
    assert score.measures["iou"].low < found["iou"] < score.measures["iou"].high


def test_grounded_question_answering_has_nextgqas_measures(tmp_path):
    texts = ("C</answer><glue>[[2, 6]]</glue>", "C</answer><glue>[[3, 4]]</glue>", "A</answer><glue>[[2, 6]]</glue>")
    rows = [GROUNDED | {"output": f"<answer>{text}"} for text in texts]
    found = means(evaluated(write(tmp_path / "4.jsonl", *rows))["own"]["grounded_qa"])
    # the second moment lies inside the truth and covers a quarter of it
    expected = {"accuracy": 2 / 3, "letters_accuracy": 2 / 3, "iou": 2.25 / 3, "iop": 1, "iop_0.5": 1}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["accuracy_iou_0.5"] == pytest.approx(1 / 3)


def test_numbers_and_texts(tmp_path):
    rows = [
        {"task": "regression", "gts": "100", "output": "<answer>110</answer>"},
        {"task": "ocr", "gts": "no parking here today", "output": "<answer>no parking here</answer>"},
        {"task": "counting", "gts": "3", "output": "<answer>5</answer>"},
        {"task": "counting", "gts": "3", "output": "<answer>many</answer>"},
    ]
    found = evaluated(write(tmp_path / "4.jsonl", *rows))["own"]
    # relative error 0.1 is below 1 - t for t = .5, .55, ..., .85
    assert means(found["regression"])["mra"] == pytest.approx(0.8)
    assert means(found["ocr"])["wer"] == pytest.approx(0.25)
    error = found["counting"].measures["count_error"]
    assert (error.n, error.mean, found["counting"].n) == (1, 2.0, 2)


def test_letters_and_other_tasks_of_one_benchmark_are_told_apart(tmp_path, capsys):
    letters = {"gts": "A,C", "output": "<answer>A</answer>"}
    path = write(tmp_path / "4.jsonl", letters, *answers(GROUNDING, "2 to 6"))
    assert run(path, "--json", tmp_path / "out.json") == 0
    printed = capsys.readouterr().out
    assert "| own | all | 1 | 0.0 [" in printed and "| own | temporal_grounding | mIoU | 1 | 1.000 |" in printed
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["scores"]["own"]["all"]["n"] == 1
    assert report["task_scores"]["own"]["temporal_grounding"]["measures"]["recall_0.7"]["mean"] == 1


def test_two_models_on_the_same_questions(tmp_path, capsys):
    good, bad = ["2 to 6"] * 8 + ["9 to 10"] * 2, ["9 to 10"] * 8 + ["2 to 6"] * 2
    model = write(tmp_path / "model.jsonl", *answers(GROUNDING, *good))
    baseline = write(tmp_path / "baseline.jsonl", *answers(GROUNDING, *bad))
    assert run(model, "--baseline", baseline, "--json", tmp_path / "out.json") == 0
    measures = json.loads((tmp_path / "out.json").read_text())["paired_tasks"]["own"]["temporal_grounding"]["measures"]
    assert measures["recall_0.5"]["difference"] == pytest.approx(0.6)
    # 8 against 2 coin tosses, two-sided: 2 (1 + 10 + 45) / 1024
    assert measures["recall_0.5"]["p_value"] == pytest.approx(112 / 1024)
    assert measures["recall_0.5"]["test"] == "mcnemar"
    assert "| own | temporal_grounding | mIoU | 10 | +0.600 |" in capsys.readouterr().out
    assert run(model, "--baseline", model) == 0
    assert "| mIoU | 10 | +0.000 | [-0.236, +0.236] | 1 | mcnemar |" in capsys.readouterr().out


def test_a_graded_measure_has_the_sign_flip_test(tmp_path):
    first = write(tmp_path / "a.jsonl", *answers(GROUNDING, "2 to 5", "2 to 4", "2 to 5.5"))
    second = write(tmp_path / "b.jsonl", *answers(GROUNDING, "2 to 4", "2 to 3", "2 to 3"))
    rows = [score_rows(read_predictions([path]).rows) for path in (first, second)]
    part = compare_tasks(*rows)["own"]["temporal_grounding"].measures["iou"]
    assert (part.n, part.test, part.p_value) == (3, "sign_flip", 0.25)
    assert part.difference == pytest.approx((0.25 + 0.25 + 0.625) / 3)


def test_another_truth_is_no_pair(tmp_path):
    other = GROUNDING | {"gts": json.dumps({"intervals": [[2, 7]], "duration": 10})}
    paths = [write(tmp_path / f"{k}.jsonl", *answers(kind, "2 to 6")) for k, kind in enumerate((GROUNDING, other))]
    with pytest.raises(
        ValueError, match="0.jsonl: line 1: temporal_grounding has another truth, or task, at .*1.jsonl"
    ):
        run(paths[0], "--baseline", paths[1])


def test_settings_and_leniencies_reach_the_tasks(tmp_path, capsys):
    several = GROUNDING | {"output": "<answer>[[2, 6], [9, 10]]</answer>"}
    path = write(tmp_path / "4.jsonl", several, GROUNDING | {"output": "2 to 6"})
    run(path)
    assert "| mIoU | 2 | 0.900 | [0.800, 1.000] | 0 |" in capsys.readouterr().out
    run(path, "--lenient", "none", "--set", "tasks.temporal_grounding.overlap=best")
    assert "| mIoU | 2 | 0.000 |" in capsys.readouterr().out
    for word, message in (
        ("overlap", "need NAME=VALUE"),
        ("tasks.temporal_grounding.overlap=some", "overlap: 'some' is not one of"),
        ("tasks.segmentation.threshold=1", "no such reward task"),
    ):
        with pytest.raises(ValueError, match=message):
            run(path, "--set", word)


def test_a_row_of_an_unknown_task_or_with_a_bad_truth_is_named(tmp_path):
    rows = [{"task": "segmentation", "gts": "x", "output": "y"}, {"task": "counting", "gts": "few", "output": "y"}]
    found = read_predictions([write(tmp_path / "4.jsonl", *rows, *answers(GROUNDING, "2 to 6"))])
    assert len(found.rows) == 1
    assert "line 1: task 'segmentation' is none of boolean" in found.unreadable[0]
    assert "line 2: ground truth is 'few', need an integer" in found.unreadable[1]


@pytest.mark.parametrize("differences", [[], [0.0, 0.0], [1.0], [0.5, 0.25, -0.1], [0.2, 0.0, -0.2, 0.7, 0.1]])
def test_the_sign_flip_test_against_all_flips(differences):
    live = [d for d in differences if d]
    sums = [
        abs(sum(s * d for s, d in zip(signs, live, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(live))
    ]
    reference = np.mean([total >= abs(sum(live)) - 1e-9 for total in sums])
    assert sign_flip(differences, 0) == pytest.approx(reference)


def test_drawn_flips_come_near_to_the_normal_approximation():
    rng = np.random.default_rng(1)
    differences = rng.normal(0.1, 1, 400).tolist()
    from scipy.stats import norm

    z = sum(differences) / np.sqrt(np.sum(np.square(differences)))
    assert sign_flip(differences, 0) == pytest.approx(2 * norm.sf(abs(z)), abs=0.02)
    assert sign_flip(differences, 0) == sign_flip(differences, 0)
    assert sign_flip([1.0] * 50, 0) == pytest.approx(1 / 10_001)
