"""``verl-twgrpo data audit``: what policies earn that do not look at the video."""

from __future__ import annotations

import argparse
import csv
import json
from itertools import combinations

import pytest

from verl_twgrpo.data import command
from verl_twgrpo.data.lazy_answers import lazy_answers
from verl_twgrpo.data.parquet import write_parquet
from verl_twgrpo.data.schema import Item
from verl_twgrpo.rewards import TASKS, TaskMixture, soft_reward
from verl_twgrpo.rewards.geometry import interval_iou

FRAME = {"coordinates": "pixel", "width": 100, "height": 50}
TRUTHS = {
    "multiple_choice": ["A", "A,B", "A,B", "B,C", "C"],
    "temporal_grounding": [
        {"intervals": [[0, 5]], "duration": 10},
        {"intervals": [[5, 10]], "duration": 20},
        {"intervals": [[2, 6]], "duration": 10},
    ],
    "grounded_qa": [
        {"letters": "B", "intervals": [[0, 5]], "duration": 10},
        {"letters": "B", "intervals": [[5, 10]], "duration": None},
    ],
    "tracking": [{"boxes": [None, [0, 0, 50, 50], [50, 0, 100, 50], [0, 0, 50, 50]], **FRAME}],
    "spatial_grounding": [{"boxes": [[0, 0, 50, 50]], **FRAME}, {"boxes": [[50, 0, 100, 50]], **FRAME}],
    "numeric": ["3", "4", "4"],
    "regression": ["10", "11", "100"],
    "counting": ["2", "2", "3"],
    "boolean": ["yes", "no", "no"],
    "ordering": ["A,B,C", "C,B,A", "A,C,B"],
    "ocr": ["No entry", "no exit"],
    "open_ended": ["the dog runs", "the cat runs away", "a cat"],
}


def rows(task, truths):
    return [
        {
            "data_source": "own",
            "reward_model": {"ground_truth": truth if isinstance(truth, str) else json.dumps(truth)},
            "extra_info": {"id": str(k), "task": task, "options": ["a", "b", "c"] if task == "multiple_choice" else []},
        }
        for k, truth in enumerate(truths)
    ]


def found(task, settings=None):
    return {one.answer: one for one in lazy_answers(rows(task, TRUTHS[task]), settings)}


def test_every_task_of_the_package_is_here():
    assert set(TRUTHS) == set(TASKS)


@pytest.mark.parametrize("task", sorted(TRUTHS))
def test_every_task_has_constant_answers_in_its_own_form(task):
    ways = lazy_answers(rows(task, TRUTHS[task]))
    assert ways and ways[0].best
    for way in ways:
        assert 0 <= way.accuracy <= 1 and 0 <= way.soft_accuracy <= 1
        # in the right format, so that nothing is lost but what was not seen
        assert way.score == pytest.approx(1 + way.soft_accuracy)
        assert way.best == (way.score == ways[0].score)
    scores = [way.score for way in ways]
    assert scores == sorted(scores, reverse=True)


def test_the_best_letters_are_the_best_of_all_sets():
    truths = [frozenset(truth.split(",")) for truth in TRUTHS["multiple_choice"]]
    sets = [frozenset(chosen) for size in (1, 2, 3) for chosen in combinations("ABC", size)]
    best = max(sum(soft_reward(chosen, truth) for truth in truths) / len(truths) for chosen in sets)
    ways = found("multiple_choice")
    assert max(way.soft_accuracy for way in ways.values()) == pytest.approx(best)
    assert ways["all letters"].example == "<answer>A,B,C</answer>" and ways["all letters"].soft_accuracy == 0


def test_the_whole_video_earns_the_share_that_is_true():
    ways = found("temporal_grounding")
    assert ways["the whole video"].soft_accuracy == pytest.approx((0.5 + 0.25 + 0.4) / 3)
    (part,) = [way for name, way in ways.items() if name.startswith("the best part")]
    grid = [(a / 20, b / 20) for a in range(21) for b in range(a + 1, 21)]
    truths = TRUTHS["temporal_grounding"]
    best = max(
        sum(interval_iou([(a * t["duration"], b * t["duration"])], t["intervals"]) for t in truths) for a, b in grid
    )
    assert part.soft_accuracy == pytest.approx(best / 3)
    assert part.soft_accuracy > ways["the whole video"].soft_accuracy


def test_without_durations_only_seconds_can_be_guessed():
    ways = found("grounded_qa")
    assert not any("video" in name for name in ways)
    (way,) = [way for name, way in ways.items() if name.startswith("B, the best seconds")]
    # 0 to 5 or 0 to 10 are right in one of two or half right in both
    assert way.soft_accuracy == pytest.approx(0.5 + 0.5 * 0.5)


def test_a_first_box_kept_or_alone():
    ways = found("tracking")
    assert ways["its first box, always"].soft_accuracy == pytest.approx(2 / 3)
    assert ways["its first box, in its first frame"].soft_accuracy == pytest.approx(1 / 3)
    assert ways["the whole frame, always"].soft_accuracy == pytest.approx(0.5)
    assert ways["the mean box, always"].example.startswith("<answer>[[16.")
    assert found("spatial_grounding")["the mean box"].example == "<answer>[[25.0, 0.0, 75.0, 50.0]]</answer>"


def test_numbers_orders_and_words():
    assert found("counting")["the most frequent answer (2 of 3 rows)"].accuracy == pytest.approx(2 / 3)
    way = next(iter(found("regression").values()))
    assert way.answer in ("the best number: 10", "the best number: 11")
    assert way.soft_accuracy == pytest.approx((1 + 0.9) / 3, abs=0.07)
    ways = found("ordering")
    assert ways["the labels in alphabetical order"].soft_accuracy == pytest.approx((1 + 0 + 1 / 3) / 3)
    assert found("open_ended")["the 3 most common words"].soft_accuracy > 0.4


def test_the_settings_of_the_run_count():
    ways = found("boolean", TaskMixture({"format_weight": 0.0, "accuracy_weight": 2.0}))
    assert [way.score for way in ways.values()] == [pytest.approx(4 / 3)]


@pytest.mark.parametrize(
    ("task", "truth", "message"), [("x", "1", "task 'x' is none of"), ("counting", "a", "integer")]
)
def test_bad_rows_are_named(task, truth, message):
    with pytest.raises(ValueError, match=f"own: item 0: .*{message}"):
        lazy_answers(rows(task, [truth]))


def test_the_command_prints_and_writes(tmp_path, capsys):
    items = [
        Item(f"q{k}", "jsonl", "train", "How many?", (), frozenset(), "v.mp4", task="counting", truth=truth)
        for k, truth in enumerate(TRUTHS["counting"])
    ]
    path = write_parquet(items, tmp_path / "q.parquet")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = ["audit", str(path), "--json", str(tmp_path / "a.json"), "--csv", str(tmp_path / "a.csv")]
    assert command.run(parser.parse_args(words)) == 0
    line = "| jsonl | counting | 3 | the most frequent answer (2 of 3 rows) * | 0.667 | 0.667 | 1.667 |\n"
    assert line in capsys.readouterr().out
    (as_json,) = json.loads((tmp_path / "a.json").read_text())
    (as_csv,) = csv.DictReader((tmp_path / "a.csv").open())
    assert as_json["example"] == as_csv["example"] == "<answer>2</answer>"
    with pytest.raises(FileExistsError, match="a.json exists; give --force"):
        command.run(parser.parse_args(words))
