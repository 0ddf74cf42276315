"""Eq. 7, the format reward, the settings, the ground truth, and what a scored response reports."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from verl_twgrpo.data.schema import Item
from verl_twgrpo.rewards import (
    RewardSettings,
    check_gold,
    compute_score,
    exact_reward,
    format_reward,
    read_truth,
    scoring,
    soft_reward,
    validate,
)

RIGHT = "<think>x</think>\n<answer>A, C</answer>"
answer_sets = st.frozensets(st.sampled_from("ABCDE"))


@pytest.mark.parametrize(
    ("predicted", "truth", "soft", "exact"),
    [
        ("AC", "AC", 1.0, 1.0),
        ("A", "AC", 1 / 2, 0.0),
        ("A", "ABC", 1 / 3, 0.0),
        ("AB", "ABC", 2 / 3, 0.0),
        ("AB", "AC", 0.0, 0.0),
        ("ABCD", "A", 0.0, 0.0),
        ("", "A", 0.0, 0.0),
        ("", "", 0.0, 0.0),
        ("A", "", 0.0, 0.0),
    ],
)
def test_rewards_by_hand(predicted, truth, soft, exact):
    assert soft_reward(frozenset(predicted), frozenset(truth)) == pytest.approx(soft)
    assert exact_reward(frozenset(predicted), frozenset(truth)) == exact


def test_no_answer_scores_nothing():
    assert soft_reward(None, {"A"}) == exact_reward(None, {"A"}) == 0.0
    assert soft_reward(None, frozenset()) == exact_reward(None, frozenset()) == 0.0


@given(answer_sets, answer_sets)
def test_soft_reward_is_between_exact_reward_and_one(predicted, truth):
    soft, exact = soft_reward(predicted, truth), exact_reward(predicted, truth)
    assert exact <= soft <= 1.0
    assert (soft == 1.0) == (exact == 1.0)
    assert (soft > 0) == bool(predicted and predicted <= truth)


@given(answer_sets.filter(bool), st.sampled_from("ABCDE"))
def test_one_more_true_letter_raises_the_soft_reward_and_one_wrong_letter_ends_it(truth, letter):
    if letter in truth and truth != {letter}:
        assert soft_reward(truth - {letter}, truth) == pytest.approx(1 - 1 / len(truth))
    if letter not in truth:
        assert soft_reward(truth | {letter}, truth) == 0.0


# --- format --------------------------------------------------------------------------------------------------------

format_texts = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", " ", "\n", "!", "x", "\u00a0", "<", "\x1c"]),
    max_size=12,
).map("".join)


@given(format_texts | st.text())
@example("<think></think><answer></answer>")
@example("pre <think>x</think> <answer>A</answer></answer>! !")
@example("<answer><think>x</think></answer>")
def test_format_reward_is_the_released_expression(text):
    found = re.search(r"<think>.*</think>\s*<answer>.*</answer>[\s!]*\Z", text.strip(), re.DOTALL)
    expected = bool(found) and text.count("<think>") == 1 and text.count("<answer>") == 1
    assert format_reward(text) == float(expected)


@given(format_texts)
@example("<think>x</think><answer></answer>")
@example(" <think>x</think>\n<answer>A</answer>\n")
@example("<think> </think><answer>A</answer>")
def test_strict_format_is_one_of_each_tag_around_a_thinking_and_nothing_outside(text):
    found = re.fullmatch(r"\s*<think>(.*)</think>\s*<answer>.*</answer>\s*", text, re.DOTALL)
    one_each = all(text.count(tag) == 1 for tag in ("<think>", "</think>", "<answer>", "</answer>"))
    assert format_reward(text, strict=True) == float(bool(found) and one_each and bool(found[1].strip()))


@given(format_texts)
def test_strict_format_is_a_part_of_the_released_one(text):
    assert format_reward(text, strict=True) <= format_reward(text)


# --- score ---------------------------------------------------------------------------------------------------------


def test_score_is_accuracy_plus_weighted_format():
    half = "<think>x</think><answer>A</answer>"
    assert compute_score("s", RIGHT, "A,C")["score"] == 2.0
    assert compute_score("s", half, "A,C")["score"] == 1.5
    assert compute_score("s", half, "A,C", mode="exact")["score"] == 1.0
    assert compute_score("s", half, "A,C", format_weight=0.25)["score"] == 0.75
    assert compute_score("s", half, "A,C", format_weight=0)["score"] == 0.5
    assert compute_score("s", half + "!", "A,C")["score"] == 1.5
    assert compute_score("s", half + "!", "A,C", strict_format=True)["score"] == 0.5
    assert compute_score("s", "<think>x</think><answer>A C</answer>", "A,C")["score"] == 1.0
    assert compute_score("s", "<think>x</think><answer>A C</answer>", "A,C", lenient=True)["score"] == 2.0
    assert compute_score("s", "<think>x</think><answer>A C</answer>", "A,C", lenient=["spaces"])["score"] == 2.0
    assert compute_score("s", "<think>x</think><answer>A C</answer>", "A,C", lenient=["and_word"])["score"] == 1.0


def test_everything_worth_logging_is_returned():
    info = {"id": "7", "options": ["a", "b", "c"]}
    assert compute_score("s", "<think>x</think><answer>A, T, Z</answer>", "A,C", info) == {
        "score": 1.0,
        "acc": 0.0,
        "accuracy": 0.0,
        "accuracy_single": None,
        "accuracy_multiple": 0.0,
        "soft_accuracy": 0.0,
        "soft_accuracy_multiple": 0.0,
        "format": 1.0,
        "parsed": 1.0,
        "n_predicted": 3,
        "n_truth": 2,
        "out_of_range": 2,
        "id": "7",
        "benchmark": "s",
    }
    unparsed = compute_score("s", "no idea", "B", info)
    assert (unparsed["parsed"], unparsed["n_predicted"], unparsed["n_truth"], unparsed["out_of_range"]) == (
        0.0,
        0,
        1,
        0,
    )
    assert (unparsed["accuracy_single"], unparsed["accuracy_multiple"]) == (0.0, None)
    single = compute_score("s", "<answer>B</answer>", "B", info)
    assert (single["accuracy_single"], single["acc"], single["soft_accuracy_multiple"]) == (1.0, 1.0, None)


@pytest.mark.parametrize(
    ("info", "expected"), [({"id": 7}, "7"), ({"id": "v1_q2"}, "v1_q2"), ({"id": 0}, "0"), ({}, None), (None, None)]
)
def test_a_row_is_named_in_its_result_as_text_or_not_at_all(info, expected):
    result = compute_score("clevrer", RIGHT, "A,C", info)
    assert (result["id"], result["benchmark"]) == (expected, "clevrer")


def test_soft_accuracy_is_reported_whatever_the_mode():
    half = compute_score("s", "<think>x</think><answer>A</answer>", "A,C", mode="exact")
    assert (half["soft_accuracy"], half["soft_accuracy_multiple"]) == (0.5, 0.5)
    assert (half["accuracy"], half["accuracy_multiple"], half["acc"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("options", [["a"] * 4, ("a",) * 4, np.array(["a"] * 4, dtype=object)])
def test_allowed_letters_come_from_the_options(options):
    response = "<think>x</think><answer>D, E</answer>"
    assert compute_score("s", response, "D", {"options": options})["out_of_range"] == 1
    with pytest.raises(ValueError, match="E is not among the options A,B,C,D"):
        compute_score("s", response, "E", {"options": options})


def test_without_options_every_letter_is_allowed():
    for extra_info in (None, {}, {"id": 3}):
        assert compute_score("s", "<answer>Z</answer>", "Z", extra_info)["out_of_range"] == 0


@given(st.text(), st.booleans(), st.booleans())
def test_no_response_raises(text, lenient, strict_format):
    for response in (text, f"<think>{text}</think><answer>{text}</answer>"):
        result = compute_score(
            "s", response, "A,C", {"options": ["a"] * 4}, lenient=lenient, strict_format=strict_format
        )
        assert 0.0 <= result["score"] <= 2.0


# --- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "bad"),
    [
        ("mode", "hard"),
        ("mode", None),
        ("mode", ["soft"]),
        ("lenient", "true"),
        ("lenient", ["typo"]),
        ("format_weight", -0.5),
        ("format_weight", math.nan),
        ("format_weight", math.inf),
        ("format_weight", "1"),
        ("format_weight", True),
        ("strict_format", 1),
        ("strict_format", "no"),
    ],
)
def test_a_bad_setting_is_named(setting, bad):
    with pytest.raises(ValueError, match=f"^{setting}: "):
        RewardSettings.read({setting: bad})
    with pytest.raises(ValueError, match=f"^{setting}: "):
        compute_score("s", RIGHT, "A,C", **{setting: bad})


def test_an_unknown_setting_is_named():
    with pytest.raises(
        ValueError, match="^formt_weight: no such reward setting; there are mode, lenient, format_weight"
    ):
        compute_score("s", RIGHT, "A,C", formt_weight=0.5)


def test_what_verl_hands_to_every_reward_function_is_not_a_setting():
    router = {"reward_router_address": "127.0.0.1:8000", "reward_model_tokenizer": object()}
    assert compute_score("s", RIGHT, "A,C", mode="exact", **router)["score"] == 2.0


# --- ground truth --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["A,C", "C,A", " A , C\n", "<answer>A,C</answer>", " <answer> A, C </answer> "])
def test_truth_is_read_in_both_written_forms(written):
    assert read_truth(written, "ABCD", "s: item 7") == {"A", "C"}
    assert compute_score("s", RIGHT, written, {"options": ["a"] * 4})["score"] == 2.0


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        ("<answer></answer>", "is empty"),
        ("<answer> </answer>", "is empty"),
        ("E", "E is not among the options A,B,C,D"),
        ("A,F,E", "E,F is not among the options"),
        ("a", "'a' is not a list of different letters"),
        ("A,", "not a list"),
        ("AC", "not a list"),
        ("A,A", "not a list of different letters"),
        ("A or C", "not a list"),
        ("<answer>A", "not a list"),
        ("<answer>A</answer><answer>B</answer>", "not a list"),
        (None, "is a NoneType"),
        (["A"], "is a list"),
    ],
)
def test_a_bad_truth_is_refused_with_the_id_of_its_row(truth, message):
    with pytest.raises(ValueError, match=f"^clevrer: item v12_q3: ground truth .*{message}"):
        compute_score("clevrer", RIGHT, truth, {"id": "v12_q3", "options": ["a"] * 4})


@pytest.mark.parametrize("count", [0, 27])
def test_options_that_no_letters_can_name_are_refused_with_the_id_of_their_row(count):
    with pytest.raises(ValueError, match=f"^clevrer: item 5: {count} options, need 1 to 26"):
        compute_score("clevrer", RIGHT, "A", {"id": 5, "options": ["a"] * count})


# --- gold answers --------------------------------------------------------------------------------------------------


def make_item(**changes):
    fields = {"id": "q1", "source": "clevrer", "split": "train", "question": "What happens?", "video": "v.mp4"}
    return Item(**fields | {"options": ("a", "b", "c"), "answers": frozenset("AC")} | changes)


@given(st.integers(1, 26), st.data())
@pytest.mark.slow
def test_the_gold_answer_of_every_item_scores_in_full(count, data):
    answers = data.draw(st.frozensets(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:count]), min_size=1))
    item = make_item(options=tuple(f"option {k}" for k in range(count)), answers=answers)
    assert validate([item, item]) == 2


def test_validate_names_the_item_that_cannot_be_scored():
    bad = SimpleNamespace(id="q2", source="star", options=("a", "b"), ground_truth="C")
    with pytest.raises(ValueError, match="^star: item q2: "):
        validate([make_item(), bad])


def test_validate_of_nothing_is_no_error():
    assert validate([]) == 0


def test_a_row_whose_gold_answer_does_not_score_in_full_is_refused(monkeypatch):
    check_gold("star", "<answer>A,B</answer>", {"id": 9, "options": ["a", "b"]})
    monkeypatch.setattr(scoring, "parse_answer", lambda text, lenient: frozenset("A"))
    with pytest.raises(ValueError, match="^star: item 9: the gold answer .*A,B.* scores only 1.5"):
        check_gold("star", "A,B", {"id": 9, "options": ["a", "b"]})
