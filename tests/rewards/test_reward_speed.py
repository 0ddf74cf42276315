"""A megabyte of anything is scored in milliseconds."""

from __future__ import annotations

import time

import pytest

from verl_twgrpo.rewards import compute_score

MEGABYTE = 1_000_000
LIMIT_SECONDS = 0.050
UNITS = ["<answer>", "</answer>", "<answer></answer>", "<answer>A</answer>", "<think>", "</think>", "<think></think>"]
UNITS += ["<", "</", "answer>", "A,", "A", "a ", " ", " , ", "\n", "! ", "(", "(A", "A. x\n", "A.\n", "and ", ";"]
UNITS += ["\x00", "\u200f", "\u202e", "Ａ，", "、", "\u00a0", "final answer:", "答案：", "\ud800"]
PLACES = ["{}", "<think>x</think><answer>{}</answer>", "<think>x</think><answer>A{}</answer>", "{}<answer>A</answer>"]
PLACES += [
    "<think>{}</think><answer>A</answer>",
    "<think>x</think><answer>A</answer>{}",
    "<answer>{}</b>",
    "<answer>{}",
]


@pytest.mark.parametrize("unit", UNITS)
def test_a_megabyte_of_adversarial_text_takes_less_than_50_ms(unit):
    filler = (unit * (MEGABYTE // len(unit) + 1))[:MEGABYTE]
    for place in PLACES:
        text = place.format(filler)
        for settings in ({}, {"lenient": True, "strict_format": True}):
            seconds = []
            for _ in range(3):  # the best of three: other processes share the machine
                start = time.process_time()
                compute_score("speed", text, "A", {"options": ["a", "b"]}, **settings)
                seconds.append(time.process_time() - start)
                if seconds[-1] < LIMIT_SECONDS:
                    break
            assert min(seconds) < LIMIT_SECONDS, (unit, place, settings)


def test_many_different_words_take_less_than_50_ms():
    words = ",".join(f"AB{number}" for number in range(MEGABYTE // 8))
    start = time.process_time()
    compute_score("speed", f"<answer>{words}</answer>", "A", lenient=True)
    assert time.process_time() - start < LIMIT_SECONDS
