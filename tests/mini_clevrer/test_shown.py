"""The demo's easy questions: what is asked is in the frames; careless answers are as careless as told."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from verl_twgrpo.mini_clevrer.world import shown
from verl_twgrpo.mini_clevrer.world.render import frames
from verl_twgrpo.rewards import compute_score

SHADE = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 230)}
SHADE |= {"yellow": (240, 220, 50), "purple": (150, 40, 170), "cyan": (60, 220, 230)}


@pytest.fixture(scope="module")
def drawn():
    return [shown.draw(np.random.default_rng([7, k])) for k in range(150)]


def test_the_truth_is_what_the_frames_show(drawn):
    for question in drawn[:40]:
        first = frames(question.world)[0]
        for option, true in zip(question.options, question.truth, strict=True):
            assert (first == SHADE[option.split()[0]]).all(-1).any() == true


def test_one_to_three_options_are_true_and_no_constant_answer_is_worth_much(drawn):
    sizes = Counter(sum(question.truth) for question in drawn)
    assert set(sizes) == {1, 2, 3}
    answers = Counter(question.truth for question in drawn)
    assert max(answers.values()) < 0.15 * len(drawn)


def test_careful_responses_are_right_and_careless_ones_as_wrong_as_they_were_told(drawn):
    rng = np.random.default_rng(0)
    wrong = untagged = 0
    for question in drawn:
        item = shown.to_item(question, "x", "train", "x.mp4")
        careful = shown.response(rng, question)
        score = compute_score("mini_clevrer", careful, item.ground_truth)
        assert score["accuracy"] == 1 and score["format"] == 1
        careless = shown.response(rng, question, slips=0.3, untagged=0.2)
        untagged += "<answer>" not in careless
        verdicts = re.findall(r"[A-D]: (\w+) (yes|no)\. ", careless)
        assert [colour for colour, _ in verdicts] == [option.split()[0] for option in question.options]
        wrong += sum((said == "yes") != true for (_, said), true in zip(verdicts, question.truth, strict=True))
    assert 0.2 < wrong / (4 * len(drawn)) < 0.4
    assert 0.1 < untagged / len(drawn) < 0.3


def test_items_depend_on_split_seed_and_number_only(tmp_path):
    short = shown.generate(tmp_path / "a", "train", 2, seed=3)
    long = shown.generate(tmp_path / "b", "train", 3, seed=3)
    assert [item.question for item in short] == [shown.QUESTION] * 2
    assert [item.video_digest for item in short] == [item.video_digest for item in long[:2]]
    other = shown.generate(tmp_path / "c", "validation", 1, seed=3)
    assert other[0].video_digest not in {item.video_digest for item in long}
