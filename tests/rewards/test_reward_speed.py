"""The time to score a text grows no faster than the text, whatever the text.

How long a megabyte takes is measured by ``verl-twgrpo bench reward``; here only the growth counts, so that a busy
machine fails nothing.
"""

from __future__ import annotations

import time

import pytest
from task_truths import TRUTHS

from verl_twgrpo.bench.reward import FILLERS, PLACES
from verl_twgrpo.rewards import compute_score, score

pytestmark = pytest.mark.slow

SHORT, LONG = 250_000, 1_000_000
FACTOR, SLACK_SECONDS = 10, 0.1
"""Four times the text may take ten times as long and a tenth of a second more; a quadratic step takes sixteen times."""


def seconds(function, *arguments):
    """The best of up to three runs, in processor time."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        function(*arguments)
        best = min(best, time.process_time() - start)
        if best < SLACK_SECONDS / 10:
            break
    return best


def assert_linear(function, make_text, where):
    short, long = (seconds(function, make_text(length)) for length in (SHORT, LONG))
    assert long <= FACTOR * short + SLACK_SECONDS, (where, short, long)


@pytest.mark.parametrize("filler", FILLERS)
def test_letters_are_read_in_linear_time(filler):
    for place in PLACES:
        for settings in ({}, {"lenient": True, "strict_format": True}):
            assert_linear(
                lambda text, settings=settings: compute_score("s", text, "A", {"options": ["a", "b"]}, **settings),
                lambda length, place=place: place.format((filler * (length // len(filler) + 1))[:length]),
                (filler, place, settings),
            )


def test_many_different_words_are_read_in_linear_time():
    def words(length):
        return f"<answer>{','.join(f'AB{number}' for number in range(length // 8))}</answer>"

    assert_linear(lambda text: compute_score("s", text, "A", lenient=True), words, "words")
    for task in TRUTHS:
        assert_linear(lambda text, task=task: score(task, text, TRUTHS[task], {"lenient": True}), words, task)


@pytest.mark.parametrize("task", sorted(TRUTHS))
def test_every_task_is_scored_in_linear_time(task):
    for filler in FILLERS[::5]:
        for place in PLACES:
            assert_linear(
                lambda text: score(task, text, TRUTHS[task], {"lenient": True}),
                lambda length, place=place, filler=filler: place.format(
                    (filler * (length // len(filler) + 1))[:length]
                ),
                (task, filler, place),
            )


def test_a_quadratic_reader_would_be_found():
    def slow(text):
        for end in range(0, len(text), 100):
            text[:end].count("b")

    with pytest.raises(AssertionError):
        assert_linear(slow, lambda length: "a" * length, "slow")
