"""The grammar of numbers, times, intervals and boxes: what is an answer, and what is none."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_twgrpo.rewards.forms import ANSWER_CHARS, read_boxes, read_integer, read_intervals, read_number, read_time
from verl_twgrpo.rewards.tasks.numbers import read_quantity

NO_NUMBERS = [
    "",
    " ",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "Infinity",
    "1e400",
    "-1e999",
    "1_000",
    "0x10",
    "１２",
    "½",
    "٣",
    "--3",
]
NO_NUMBERS += ["1.2.3", "e5", ".", "+", "1e", "5 m", "1,2", "9" * 400, "1" * 41, "five", "\x00", "1\x00"]


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_number(text):
    assert read_number(text) is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_double_is_read_as_itself(value):
    assert read_number(repr(value)) == value
    assert read_number(f" {value!r}\n") == value


@given(st.integers(-(10**38), 10**38))
def test_every_integer_is_read_as_itself(value):
    assert read_integer(str(value)) == value


@pytest.mark.parametrize("text", ["", "1.0", "1e2", "+", "-", "１", "٣", "1 2", "0x1", "1_0", "9" * 41, "²"])
def test_what_is_no_integer(text):
    assert read_integer(text) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12", 12),
        ("12.5", 12.5),
        ("0", 0),
        (".5", 0.5),
        ("1:05", 65),
        ("01:05.5", 65.5),
        ("90:00", 5400),
        ("1:02:03", 3723),
        ("1:60", None),
        ("1:75", None),
        ("1:60:00", None),
        ("1:2:3:4", None),
        (":30", None),
        ("1:", None),
        ("1.5:30", None),
        ("-5", None),
        ("1:-5", None),
        ("1e400", None),
        ("１:０５", None),
    ],
)
def test_times(text, seconds):
    assert read_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("12.5 to 15", "12.5 and 15", "12.5 - 15", "12.5-15", "12.5–15", "12.5 TO 15", " 12.5\nto\t15 "),
        *("[12.5, 15]", "(12.5, 15)", "[12.5,15]", "[[12.5, 15]]", "[(12.5, 15)]", "([12.5, 15])"),
        *(
            "12.5s to 15s",
            "12.5 seconds to 15 seconds",
            "12.5 sec - 15 sec",
            "0:12.5 to 0:15",
            "[12.5s, 15s]",
            "12.5 to 15.",
        ),
    ],
)
def test_one_interval_in_every_form(text):
    assert read_intervals(text) == ((12.5, 15.0),)


@pytest.mark.parametrize(
    "text", ["[1, 2], [3, 4]", "[[1, 2], [3, 4]]", "[(1, 2), (3, 4)]", "(1,2),(3,4)", "[1s, 2s], (3,4)"]
)
def test_several_intervals_in_every_form(text):
    assert read_intervals(text) == ((1.0, 2.0), (3.0, 4.0))


@pytest.mark.parametrize(
    "text",
    [
        *("", "12", "12 15", "12 to", "to 15", "12 to 15 to 18", "12, 15", "12 to 15, 18 to 20", "from 12 to 15"),
        *("[12 to 15]", "[12, 15", "12, 15]", "[12, 15)", "[[1, 2], [3, 4]", "[1, 2] [3, 4]", "[1, 2],", "[[1, 2], 3]"),
        *("[1, 2, 3]", "[]", "[[]]", "[[[1, 2]]]", "about 12 to 15", "12 minutes to 15 minutes"),
        *("-3 to 5", "[-3, 5]", "3 to -5", "5 to 5", "[5, 5]", "9 to 3", "nan to 5", "1 to inf", "1 to 1e400"),
        *("１ to ５", "12:75 to 15:00", "1:00 s to 2:00 s", "[1, 2], [9, 3]", "[1, 2], [4, 4]", "__import__('os')"),
    ],
)
def test_what_is_no_interval(text):
    assert read_intervals(text) is None


def test_reversed_ends_are_put_in_order_only_by_name():
    assert read_intervals("9 to 3") is None
    assert read_intervals("9 to 3", reversed_ends=True) == ((3.0, 9.0),)
    assert read_intervals("5 to 5", reversed_ends=True) is None


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(1e-3, 1e6)), min_size=1, max_size=5))
def test_written_intervals_are_read_as_they_are(pairs):
    intervals = [(start, start + extent) for start, extent in pairs if start + extent > start]
    assert intervals and read_intervals(str([list(interval) for interval in intervals])) == tuple(intervals)


@pytest.mark.parametrize("text", ["[0.1, 0.2, 3, 4]", "(0.1, 0.2, 3, 4)", "[[0.1,0.2,3,4]]", "[(0.1, 0.2, 3, 4)]"])
def test_one_box_in_every_form(text):
    assert read_boxes(text) == ((0.1, 0.2, 3.0, 4.0),)


def test_boxes_may_be_missing_and_reach_past_their_frame():
    assert read_boxes("[null, [-1, -2, 3, +4], none]") == (None, (-1.0, -2.0, 3.0, 4.0), None)
    assert read_boxes("null, [0, 0, 1, 1]") == (None, (0.0, 0.0, 1.0, 1.0))


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "[null, null]", "0, 0, 1, 1", "[0, 0, 1]", "[0, 0, 1, 1, 1]", "[0, 0, 1, 1", "[0 0 1 1]"),
        *("[0, 0, 0, 1]", "[0, 0, 1, 0]", "[1, 1, 0, 0]", "[0, 0, nan, 1]", "[0, 0, 1e400, 1]", "[0, 0, --1, 1]"),
        *("[[0, 0, 1, 1], [1, 1, 0, 0]]", "[0, 0, 1:00, 1]", "{0, 0, 1, 1}", "[0, 0, 1, 1] box", "[0, 0, 1, １]"),
    ],
)
def test_what_is_no_box(text):
    assert read_boxes(text) is None


def test_more_text_than_an_answer_has_is_none():
    box = "[0, 0, 1, 1],"
    many = box * (ANSWER_CHARS // len(box))
    assert len(read_boxes(many[:-1])) == ANSWER_CHARS // len(box)
    assert read_boxes(many + box * 2) is None


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("12.5", "", 12.5),
        ("-12.5", "m", -12.5),
        ("12.5 m", "m", 12.5),
        ("12.5M", "m", 12.5),
        ("50%", "%", 50),
        ("1,234", "", 1234),
        ("-1,234,567.5", "", -1234567.5),
        ("12.5 m", "", None),
        ("12.5 km", "m", None),
        ("12,5", "", None),
        ("1,23,456", "", None),
        ("1234,567", "", None),
        ("1,234.5,6", "", None),
        ("1,２34", "", None),
        ("1,234,", "", None),
        (",234", "", None),
        ("12 or 13", "", None),
        ("12.5 m m", "m", None),
        ("m", "m", None),
        ("1e400", "", None),
    ],
)
def test_quantities(text, unit, value):
    assert read_quantity(text, unit) == value


@given(st.text(), st.text(max_size=3))
def test_no_text_raises(text, unit):
    for value in (read_number(text), read_time(text), read_quantity(text, unit)):
        assert value is None or math.isfinite(value)
    for read in (read_integer, read_intervals, read_boxes):
        read(text)
