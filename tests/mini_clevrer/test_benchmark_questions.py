"""The study's questions: balanced by construction, true of their worlds, and the same whenever they are drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from verl_twgrpo.mini_clevrer.world import benchmark
from verl_twgrpo.mini_clevrer.world.physics import simulate
from verl_twgrpo.mini_clevrer.world.questions import option_texts, question_text
from verl_twgrpo.mini_clevrer.world.source import to_item
from verl_twgrpo.mini_clevrer.world.thoughts import response

# worlds are simulated for them
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drawn():
    return [benchmark.draw("test", index, 0) for index in range(12)]


@pytest.mark.slow
def test_twelve_in_a_row_are_balanced(drawn):
    questions = [one.question for one in drawn]
    assert Counter(question.kind for question in questions) == {"counterfactual": 8, "first half": 4}
    for kind, differing in (("counterfactual", 4), ("first half", 4)):
        of_kind = [question for question in questions if question.kind == kind]
        assert sum(sum(question.truth) == 1 for question in of_kind) == len(of_kind) / 2
        assert sum(question.truth != question.observed for question in of_kind) == differing
    assert all(1 <= sum(question.truth) < len(question.options) == 4 for question in questions)


def test_truths_are_those_of_the_world_run_again(drawn):
    for world, question in ((one.world, one.question) for one in drawn):
        contacts = simulate(world).contacts
        altered = simulate(world, question.about).contacts
        assert len({tuple(sorted(pair)) for pair in question.options}) == 4
        for pair, true, observed in zip(question.options, question.truth, question.observed, strict=True):
            pair = (min(pair), max(pair))
            assert observed == (pair in contacts)
            if question.kind == "counterfactual":
                assert question.about not in pair and true == (pair in altered)
            else:
                assert true == (contacts.get(pair, 1.0) < 0.5)
        if question.kind == "first half":
            # half of the time between two of eight frames
            assert min(abs(time - 0.5) for time in contacts.values()) >= 1 / 14


def test_of_the_reversed_video_the_answer_is_another(drawn):
    for world, question in ((one.world, one.question) for one in drawn):
        if question.kind != "first half":
            continue
        # who touches stays so to the end: reversed, the video begins with every pair that touches in it at all
        at_its_start = simulate(world).positions(1.0)
        touching = tuple(
            bool(np.hypot(*np.subtract(at_its_start[i], at_its_start[j])) < 2 * world.radius + 1e-9)
            for i, j in question.options
        )
        assert touching != question.truth


@pytest.mark.slow
def test_a_question_depends_on_split_seed_and_number_alone(drawn):
    again = benchmark.draw("test", 5, 0)
    assert again == drawn[5]
    others = [benchmark.draw("tuning", 5, 0), benchmark.draw("test", 5, 1)]
    assert all(other.world != again.world for other in others)
    with pytest.raises(ValueError, match="split 'held_out' is unknown"):
        benchmark.draw("held_out", 0, 0)


def test_the_digest_sees_every_word_and_answer(drawn):
    items = [to_item(one, str(k), "test", "not written") for k, one in enumerate(drawn[:3])]
    known = benchmark.digest(items)
    assert benchmark.digest(items) == known
    for change in ({"question": "?"}, {"answers": frozenset("D")}, {"options": items[1].options[::-1]}):
        assert benchmark.digest([items[0], replace(items[1], **change), items[2]]) != known
    assert benchmark.digest(items[::-1]) != known


def test_a_thought_about_the_first_half_tells_where_things_are_then(drawn):
    one = next(one for one in drawn if one.question.kind == "first half")
    assert question_text(one.world, one.question) == "In the first half of the video, what happens?"
    assert option_texts(one.world, one.question)[0].startswith("The ")
    text = response(np.random.default_rng(0), one.world, one.question, objects=0, terse=0.0)
    halfway, last = (simulate(one.world).positions(time) for time in (0.5, 1.0))
    cells = {
        f"{one.world.bodies[i].colour} to {'abcdef'[int(x * 6)]}{'123456'[int(y * 6)]}"
        for i, (x, y) in halfway.items()
        if i in {place for pair in one.question.options for place in pair}
    }
    assert cells and all(cell in text for cell in cells) and halfway != last
