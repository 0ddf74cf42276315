"""The strict grammar, and every leniency by its name."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from verl_twgrpo.rewards import LENIENCIES, parse_answer
from verl_twgrpo.rewards.answers import FINDERS, LENIENT_CHARS, REWRITES


def tagged(content: str) -> str:
    return f"<think>x</think>\n<answer>{content}</answer>"


def letters(text: str) -> frozenset[str]:
    return frozenset(text)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("B", "B"),
        ("A,C", "AC"),
        ("D, A, C", "ACD"),
        ("\n A ,\tC \n", "AC"),
        ("A\u00a0,\u2003B", "AB"),  # white space of any script
        ("C,C", "C"),
        ("T", "T"),
        (",".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    ],
)
def test_strict_grammar_reads_capital_letters_between_commas(content, expected):
    assert parse_answer(tagged(content)) == letters(expected)


@pytest.mark.parametrize(
    "content",
    [
        "",
        " ",
        ",",
        "A,",
        ",A",
        "A,,B",
        "AB",
        "A B",
        "a",
        "A;B",
        "A/B",
        "(A)",
        "A.",
        "None",
        "A and B",
        "\u00c4",
        "A\x00",
        "1",
    ]
    + ["\u200fA", "Ａ", "A，B", "A\u200b", "\U0001d400", "</answer", "A<answer", "А"],  # the last one is Cyrillic
)
def test_strict_grammar_refuses_everything_else(content):
    assert parse_answer(tagged(content)) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "<answer>A",
        "A</answer>",
        "</answer>A<answer>",
        "<answer>A</answer><answer>A</answer>",
        "<answer>A</answer> or <answer>B",
        "<answer><answer>A</answer></answer>",
        "<answer>A</answer></answer>",
        "<think><answer>A</answer></think><answer>B</answer>",
        "<Answer>A</Answer>",
    ],
)
def test_strict_grammar_needs_exactly_one_pair_of_tags(text):
    assert parse_answer(text) is None


RULE_EXAMPLES = {
    "nested_tag": [("<answer><answer>A</answer></answer>", "A"), ("<answer>\nB <answer></answer>\n</answer>", "B")],
    "answer_in_thinking": [("<think>or <answer>A</answer>?</think><answer>B, C</answer>", "BC")],
    "wrong_closing_tag": [("<answer>A, C </option", "AC"), ("<answer>A</a>\n", "A")],
    "wrong_opening_tag": [("</think>\n.answer>\nA\n</answer>", "A")],
    "answer_line": [
        ("<think>so\nFinal answer: A, D\n</think>", "AD"),
        ("so\n\n  ANSWER : B\n", "B"),
        ("</think>\n答案：C, A", "AC"),
    ],
    "bare": [("B", "B"), (" A, B\n", "AB"), ("<think>x</think>\nA", "A")],
    "full_width": [(tagged("Ａ，Ｃ"), "AC"), (tagged("A、C"), "AC")],
    "option_label": [
        (tagged("A. The cube turns, then stops"), "A"),
        (tagged("A. The cube turns\n\nC) It stops."), "AC"),
        (tagged("(B) it falls"), "B"),
        (tagged("D:"), "D"),
    ],
    "parentheses": [(tagged("(A), [C]"), "AC")],
    "and_word": [(tagged("B, C, and D"), "BCD"), (tagged("A AND B"), "AB"), (tagged("A&B"), "AB")],
    "semicolon": [(tagged("A;B"), "AB")],
    "spaces": [(tagged("C D"), "CD"), (tagged("A \nC"), "AC"), (tagged("A, B C"), "ABC")],
    "dangling_comma": [(tagged("B,"), "B"), (tagged(", D"), "D"), (tagged("B, , C"), "BC")],
    "concatenated": [(tagged("CD"), "CD"), (tagged("AB, D"), "ABD")],
    "lower_case": [(tagged("c"), "C"), (tagged("a, B"), "AB")],
}


def test_every_leniency_has_an_example():
    assert set(RULE_EXAMPLES) == LENIENCIES == {*FINDERS, *REWRITES}


@pytest.mark.parametrize(
    ("rule", "text", "expected"), [(rule, *example) for rule, examples in RULE_EXAMPLES.items() for example in examples]
)
def test_a_leniency_reads_its_example_alone_and_nothing_else_does(rule, text, expected):
    assert parse_answer(text) is None
    assert parse_answer(text, lenient=[rule]) == letters(expected)
    assert parse_answer(text, lenient=LENIENCIES - {rule}) is None
    assert parse_answer(text, lenient=True) == letters(expected)


@pytest.mark.parametrize(
    "text",
    [
        "<answer>A</answer><answer>B</answer>",  # two answers
        "<think>x</think><answer>A</answer><answer>B</answer>",
        "<answer>A</answer> or <answer>B",
        "<answer></answer><answer>B</answer>",
        "<answer>A<answer>B</answer></answer>",
        "<answer>A</answer></answer>",
        "<answer><answer>A</answer>",
        "<answer>A",  # the rest of the list may be cut off
        "<answer>A,",
        "<answer>A</a> but then B",
        tagged(""),
        tagged(",,"),
        tagged("A/B"),  # either, or both?
        tagged("C</option>, B"),
        tagged("None"),
        tagged("NONE"),
        tagged("none"),
        tagged("A OR B"),
        tagged("A. the cube, or B. the sphere"),
        tagged("the cube"),
        tagged("a cube"),
        tagged("1, 2"),
        "I think that it is A.",
        "answer, B",
        "\u200f" * 5,
    ],
)
def test_no_leniency_guesses(text):
    assert parse_answer(text, lenient=True) is None


def test_an_endless_answer_is_not_read_leniently():
    assert parse_answer(tagged("A " * (LENIENT_CHARS // 2 - 1)), lenient=True) == letters("A")
    assert parse_answer(tagged("A " * LENIENT_CHARS), lenient=True) is None
    assert parse_answer(tagged("A," * LENIENT_CHARS + "B")) == letters("AB")  # the strict grammar has no such limit


@pytest.mark.parametrize("lenient", ["spaces", ["space"], [["spaces"]], 1, None, 0.0])
def test_an_unknown_leniency_is_named(lenient):
    with pytest.raises(ValueError, match=re.escape(repr(lenient)) + ".*and_word.*wrong_opening_tag"):
        parse_answer("A", lenient=lenient)


# Pieces of which the interesting texts are made, between arbitrary characters.
pieces = st.sampled_from(
    [
        "<answer>",
        "</answer>",
        "<think>",
        "</think>",
        "answer>",
        "</",
        "A",
        "B",
        "c",
        ",",
        " ",
        "\n",
        ";",
        "and",
        "(A)",
        "A.",
    ]
    + ["Final answer:", "，", "\x00", "\u200f", "\u202e", "Ａ", "\ud800", "!"]
)
texts = st.lists(pieces | st.text(max_size=3), max_size=14).map("".join)


@given(texts | st.text())
@example("<answer>" * 50)
@example("</answer><answer>")
@example("<answer>\ud800</answer>")
def test_no_text_raises_and_an_answer_is_never_empty(text):
    for lenient in (False, True):
        answer = parse_answer(text, lenient)
        assert answer is None or (answer and answer <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))


@given(texts)
def test_leniency_never_changes_a_strict_answer(text):
    strict = parse_answer(text)
    assert strict is None or parse_answer(text, lenient=True) == strict


@given(texts)
def test_strict_grammar_is_the_documented_regular_expression(text):
    found = re.fullmatch(r"(?s:.*)<answer>\s*([A-Z](?:\s*,\s*[A-Z])*)\s*</answer>(?s:.*)", text)
    one_pair = text.count("<answer>") == text.count("</answer>") == 1
    expected = frozenset(re.findall("[A-Z]", found[1])) if found and one_pair else None
    assert parse_answer(text) == expected


@given(st.sets(st.sampled_from("ABCDEFGH"), min_size=1), st.randoms())
def test_the_order_of_the_letters_does_not_count(answer, random):
    order = list(answer) + random.choices(sorted(answer), k=2)
    random.shuffle(order)
    assert parse_answer(tagged(", ".join(order))) == answer
