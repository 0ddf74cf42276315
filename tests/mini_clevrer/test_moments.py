"""mini-CLEVRER's grounding and counting: the truth is the simulator's, constant answers are worth little."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from verl_twgrpo.data.lazy_answers import lazy_answers
from verl_twgrpo.data.parquet import FrameLimits, to_row
from verl_twgrpo.data.prompts import messages
from verl_twgrpo.mini_clevrer.model.tokenizer import build_tokenizer, task_phrases
from verl_twgrpo.mini_clevrer.world import moments
from verl_twgrpo.mini_clevrer.world.physics import simulate
from verl_twgrpo.mini_clevrer.world.render import FRAMES, FRAMES_PER_SECOND
from verl_twgrpo.rewards import score, validate

# worlds are simulated for them
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drawn():
    return [moments.draw(np.random.default_rng([7, k]), counting=k % 2 == 1) for k in range(120)]


def gap(world, pair, second):
    """Distance of two centres less two radii in the frame that is shown at ``second``."""
    places = simulate(world).positions(second * FRAMES_PER_SECOND / (FRAMES - 1))
    return np.hypot(*np.subtract(*(places[i] for i in pair))) - 2 * world.radius


def test_the_middle_of_the_truth_is_where_two_objects_begin_to_touch(drawn):
    for moment in drawn[::2]:
        start, end = json.loads(moment.truth)["intervals"][0]
        assert 0 <= start < end <= FRAMES / FRAMES_PER_SECOND
        if start > 0:
            contact = start + 0.5
            assert end == pytest.approx(min(2.0, contact + 0.5))
            assert gap(moment.world, moment.pair, contact) == pytest.approx(0, abs=2e-3)
            assert gap(moment.world, moment.pair, contact - 0.2) > 0.005


def test_counts_are_the_simulators_and_spread(drawn):
    counts = [int(moment.truth) for moment in drawn[1::2]]
    assert counts == [len(simulate(moment.world).contacts) for moment in drawn[1::2]]
    assert max(Counter(counts).values()) < 0.5 * len(counts)


def test_constant_answers_are_worth_less_than_half(drawn):
    rows = [to_row(moments.to_item(m, str(k), "train", "v.mp4"), k, FrameLimits()) for k, m in enumerate(drawn)]
    best = {one.task: one.soft_accuracy for one in lazy_answers(rows) if one.best}
    assert set(best) == {"counting", "temporal_grounding"}
    assert best["counting"] < 0.5 and best["temporal_grounding"] < 0.6


def test_careful_responses_score_and_careless_ones_do_not_always(drawn):
    rng = np.random.default_rng(0)
    careful = [score(m.task, moments.response(rng, m), m.truth) for m in drawn]
    assert all(scores["format"] == scores["accuracy"] == 1 for scores in careful)
    # a quarter of a second is how fine an answer gets
    assert np.mean([scores["soft_accuracy"] for scores in careful]) > 0.85
    careless = [score(m.task, moments.response(rng, m, slips=1.0), m.truth) for m in drawn]
    assert all(scores["parsed"] == 1 for scores in careless)
    assert np.mean([scores["soft_accuracy"] for scores in careless]) < 0.5


def test_items_depend_on_split_seed_and_number_only(tmp_path):
    short = moments.generate(tmp_path / "a", "train", 2, seed=3)
    long = moments.generate(tmp_path / "b", "train", 4, seed=3)
    assert [item.task for item in long] == ["temporal_grounding", "counting"] * 2
    assert [(item.truth, item.video_digest) for item in short] == [(i.truth, i.video_digest) for i in long[:2]]
    assert validate(long) == 4


def test_prompts_are_short_in_the_tokenizer_of_these_questions(drawn):
    more, plain = build_tokenizer(task_phrases()), build_tokenizer()
    for moment in drawn[:2]:
        text = messages(moments.to_item(moment, "x", "train", "v.mp4"))[0]["content"].removeprefix("<video>")
        ids = more(text)["input_ids"]
        assert more.decode(ids) == text and len(ids) < 30 < len(plain(text)["input_ids"])
    assert len(plain) < len(more)
