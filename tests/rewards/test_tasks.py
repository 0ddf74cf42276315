"""Every task type: gold answers, thresholds, settings, and truths that cannot be scored."""

from __future__ import annotations

import json
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_truths import FRAME, TRUTHS, random_response

from verl_twgrpo.rewards import TASKS, check_gold, compute_score, score
from verl_twgrpo.rewards.tasks.free_text import rouge_l, rouge_n, word_error_rate, words

FUZZED = int(os.environ.get("TASK_FUZZ_STRINGS", "2000"))
"""Strings per task; a million of them ran when a grammar last changed."""


def answer(content, glue=None):
    tail = "" if glue is None else f"<glue>{glue}</glue>"
    return f"<think>x</think><answer>{content}</answer>{tail}"


def graded(task, content, truth, settings=None, **kwargs):
    return score(task, answer(content), truth, settings, **kwargs)


def test_every_task_has_a_truth_in_these_tests():
    assert set(TASKS) == set(TRUTHS)


@pytest.mark.parametrize("task", sorted(TRUTHS))
@pytest.mark.parametrize("as_text", [False, True])
def test_gold_answers_score_in_full(task, as_text):
    truth = TRUTHS[task]
    if as_text and not isinstance(truth, str):
        truth = json.dumps(truth)
    entry = TASKS[task]
    gold = "<think>x</think>" + entry.gold(entry.read_truth(truth, {}, "test"))
    result = score(task, gold, truth)
    assert (result["accuracy"], result["soft_accuracy"], result["format"], result["parsed"]) == (1, 1, 1, 1)
    assert result["score"] == 2.0
    check_gold("test", truth if isinstance(truth, str) else json.dumps(truth), {"task": task, "id": 1})


@pytest.mark.parametrize("task", sorted(TRUTHS))
def test_no_answer_earns_nothing(task):
    for text in ("", "<answer></answer>", "<think>x</think>", "<answer>I cannot tell.</answer>"):
        result = score(task, text, TRUTHS[task])
        assert (result["accuracy"], result["soft_accuracy"]) == (0, 0), text
        assert result["score"] == result["format"]


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(TRUTHS))
def test_no_response_raises_and_every_score_is_in_range(task):
    draw = random.Random(task)
    for _ in range(FUZZED):
        result = score(task, random_response(draw), TRUTHS[task], {"lenient": draw.random() < 0.5})
        assert result["accuracy"] in (0.0, 1.0) and result["format"] in (0.0, 1.0) and result["parsed"] in (0.0, 1.0)
        assert 0.0 <= result["soft_accuracy"] <= 1.0
        assert result["accuracy"] == 0.0 or result["soft_accuracy"] > 0


@given(st.text(), st.booleans(), st.sampled_from(["soft", "exact"]), st.floats(0, 3), st.booleans())
def test_multiple_choice_scores_as_the_manager_multi_answer(text, lenient, mode, weight, strict):
    settings = {"lenient": lenient, "mode": mode, "format_weight": weight, "strict_format": strict}
    for response in (text, answer(text), answer("A"), answer("A, C"), answer("A, B"), answer("A C")):
        old = compute_score("s", response, "A,C", {"options": list("abcd")}, **settings)
        new = score("multiple_choice", response, "A,C", settings, info={"options": list("abcd")})
        assert {name: old[name] for name in new} == new
        assert set(old) - set(new) == {"id", "benchmark"}


# --- temporal grounding --------------------------------------------------------------------------------------------

ONE = {"intervals": [[2, 6]], "duration": 10}
TWO = {"intervals": [[0, 2], [6, 10]], "duration": 10}


@pytest.mark.parametrize(
    ("content", "truth", "iou"),
    [
        ("2 to 6", ONE, 1),
        ("4 to 8", ONE, 2 / 6),
        ("0 to 10", ONE, 4 / 10),
        ("6 to 10", ONE, 0),
        ("6 to 2", ONE, 0),
        ("4 to 4", ONE, 0),
        ("4 to 1000", ONE, 2 / 8),  # cut at 10 seconds
        ("11 to 20", ONE, 0),
        ("[[2, 3], [4, 6]]", ONE, 3 / 4),
        ("[[2, 6], [2, 6]]", ONE, 1),
        ("0 to 10", TWO, 6 / 10),
        ("[0, 2], [6, 10]", TWO, 1),
        ("6 to 10", TWO, 4 / 6),
    ],
)
def test_temporal_iou_of_unions(content, truth, iou):
    result = graded("temporal_grounding", content, truth)
    assert result["iou"] == result["soft_accuracy"] == pytest.approx(iou)
    assert result["accuracy"] == (iou >= 0.5)
    assert [result[f"recall_{t}"] for t in (0.3, 0.5, 0.7)] == [iou >= t for t in (0.3, 0.5, 0.7)]


@pytest.mark.parametrize(("content", "iou"), [("6 to 10", 1), ("0 to 2", 1), ("0 to 10", 0.4), ("[0, 2], [6, 10]", 0)])
def test_temporal_iou_with_the_best_true_interval(content, iou):
    result = graded("temporal_grounding", content, TWO, {"overlap": "best"})
    assert result["soft_accuracy"] == pytest.approx(iou)
    assert result["parsed"] == (iou > 0)


def test_the_variant_of_time_r1_by_hand():
    result = graded("temporal_grounding", "4 to 8", ONE, {"overlap": "best", "measure": "iou_v2", "format_weight": 0})
    assert result["score"] == pytest.approx(2 / 6 * (1 - 0.2) * (1 - 0.2))
    assert result["soft_accuracy"] == pytest.approx(2 / 6)
    with pytest.raises(ValueError, match="temporal_grounding: item 7: measure iou_v2 needs the duration"):
        settings = {"overlap": "best", "measure": "iou_v2"}
        graded("temporal_grounding", "4 to 8", {"intervals": [[2, 6]]}, settings, info={"id": 7})


def test_generalised_iou_pays_a_near_miss_more_than_a_far_one_and_both_more_than_no_answer():
    settings = {"overlap": "best", "measure": "giou", "format_weight": 0}
    near, far, none, right = (
        graded("temporal_grounding", content, ONE, settings) for content in ("6.5 to 7", "9 to 10", "x", "2 to 6")
    )
    assert near["score"] == pytest.approx((1 - 0.5 / 5) / 2)
    assert right["score"] == 1 > near["score"] > far["score"] > none["score"] == 0
    assert near["soft_accuracy"] == far["soft_accuracy"] == 0


def test_named_leniencies_of_intervals():
    for rule, text in {"reversed_ends": answer("6 to 2"), "full_width": answer("２ to ６"), "bare": "2 to 6"}.items():
        assert score("temporal_grounding", text, ONE)["accuracy"] == 0
        assert score("temporal_grounding", text, ONE, {"lenient": [rule]})["accuracy"] == 1
        assert score("temporal_grounding", text, ONE, {"lenient": True})["accuracy"] == 1


# --- grounded question answering -----------------------------------------------------------------------------------

GROUNDED = {"letters": "C", "intervals": [[2, 6]], "duration": 10}


@pytest.mark.parametrize(
    ("letters", "glue", "letter_part", "iou", "accuracy"),
    [
        ("C", "[[2, 6]]", 1, 1, 1),
        ("C", "[(3, 5)]", 1, 0.5, 1),
        ("C", "2 to 6", 1, 1, 1),
        ("C", "[[0, 10]]", 1, 0.4, 0),  # IoP 0.4
        ("B", "[[2, 6]]", 0, 1, 0),
        ("C", "[[7, 9]]", 1, 0, 0),
        ("C", None, 1, 0, 0),
        ("C", "[[6, 2]]", 1, 0, 0),
        ("B,C", "[[2, 6]]", 0, 1, 0),
        ("", "[[2, 6]]", 0, 1, 0),
    ],
)
def test_grounded_answers(letters, glue, letter_part, iou, accuracy):
    result = score("grounded_qa", answer(letters, glue), GROUNDED, {"format_weight": 0})
    assert result["score"] == pytest.approx((letter_part + iou) / 2)
    assert (result["letters_accuracy"], result["iou"]) == (letter_part, pytest.approx(iou))
    assert result["accuracy"] == accuracy
    weighted = score("grounded_qa", answer(letters, glue), GROUNDED, {"letter_weight": 1, "interval_weight": 1})
    assert weighted["score"] == pytest.approx(letter_part + iou + weighted["format"])
    assert weighted["format"] == (glue is not None)


def test_two_glues_or_text_behind_the_glue_are_no_interval():
    for text in (answer("C", "[[2, 6]]") + "<glue>[[2, 6]]</glue>", answer("C", "[[2, 6]]") + " so there"):
        result = score("grounded_qa", text, GROUNDED)
        assert (result["iou"], result["format"]) == (0, 0)


# --- boxes ---------------------------------------------------------------------------------------------------------


def test_a_track_is_scored_over_the_frames_of_its_truth():
    truth = {"boxes": [[0, 0, 0.5, 0.5]] * 4, **FRAME}
    half, whole = "[0, 0, 0.5, 0.25]", "[0, 0, 0.5, 0.5]"
    for content, iou in (
        (f"[{', '.join([whole] * 4)}]", 1),
        (f"[{', '.join([half] * 4)}]", 0.5),
        (f"[{whole}]", 0.25),  # the first frame only, which the question may have given away
        (f"[null, {whole}]", 0.25),
        (f"[{', '.join(['[0, 0, 1, 1]'] * 4)}]", 0.25),
        (f"[{', '.join(['[-9, -9, 9, 9]'] * 4)}]", 0.25),  # cut to the frame
        (f"[{', '.join([whole] * 5)}]", 0),  # more boxes than frames
        (f"[{', '.join(['[0, 0, 160, 120]'] * 4)}]", 0.25),  # pixels, where parts of the frame were asked for
        (f"[{', '.join(['[160, 120, 320, 240]'] * 4)}]", 0),
    ):
        result = graded("tracking", content, truth)
        assert result["soft_accuracy"] == pytest.approx(iou), content
        assert result["accuracy"] == (iou >= 0.5)


def test_frames_without_the_object_do_not_count():
    truth = {"boxes": [None, [0, 0, 4, 4]], "coordinates": "pixel", "width": 8, "height": 8}
    assert graded("tracking", "[[0, 0, 1, 1], [0, 0, 4, 4]]", truth)["soft_accuracy"] == 1
    assert graded("tracking", "[null, [0, 0, 4, 4]]", truth)["boxes_missing"] == 0


@pytest.mark.parametrize(
    ("content", "iou"),
    [
        ("[0, 0, 4, 4], [4, 4, 8, 8]", 1),
        ("[4, 4, 8, 8], [0, 0, 4, 4]", 1),
        ("[0, 0, 4, 4]", 1 / 2),
        ("[0, 0, 4, 4], [0, 0, 4, 4]", 1 / 2),
        ("[0, 0, 4, 4], [4, 4, 8, 8], [0, 0, 8, 8]", 2 / 3),
        ("[0, 0, 8, 8]", 0.25 / 2),
        ("[0, 0, 4, 4], null", 0),
    ],
)
def test_boxes_are_matched_in_any_order_and_a_surplus_one_costs(content, iou):
    truth = {"boxes": [[0, 0, 4, 4], [4, 4, 8, 8]], "coordinates": "pixel", "width": 8, "height": 8}
    assert graded("spatial_grounding", content, truth)["iou"] == pytest.approx(iou)


def test_a_flood_of_boxes_is_no_answer():
    truth = {"boxes": [[0, 0, 0.5, 0.5]], **FRAME}
    flood = ", ".join(["[0, 0, 0.5, 0.5]"] * 21)
    assert graded("spatial_grounding", flood, truth)["parsed"] == 0


# --- numbers, words, orders, texts ---------------------------------------------------------------------------------


def test_numeric_equality_after_normalisation():
    for content in ("12.5", "12.50", " 12.5 m", "1.25e1"):
        assert graded("numeric", content, TRUTHS["numeric"])["accuracy"] == 1
    assert graded("numeric", "12.4", TRUTHS["numeric"])["accuracy"] == 0
    assert graded("numeric", "12.4", TRUTHS["numeric"], {"tolerance": 0.2})["accuracy"] == 1
    assert graded("numeric", "0.3", 0.1 + 0.2)["accuracy"] == 1


@pytest.mark.parametrize(
    ("content", "mra", "relative", "accuracy"),
    [
        *(("100", 1, 1, 1), ("104", 1, 0.96, 1), ("105", 0.9, 0.95, 0), ("110", 0.8, 0.9, 0), ("151", 0, 0.49, 0)),
        *(("300", 0, 0, 0), ("-100", 0, 0, 0), ("1e300", 0, 0, 0), ("1e400", 0, 0, 0), ("about 100", 0, 0, 0)),
    ],
)
def test_regression_by_mean_relative_accuracy_and_by_relative_error(content, mra, relative, accuracy):
    result = graded("regression", content, 100)
    assert (result["soft_accuracy"], result["accuracy"]) == (pytest.approx(mra), accuracy)
    other = graded("regression", content, 100, {"measure": "relative_error"})
    assert other["soft_accuracy"] == pytest.approx(relative)


def test_regression_against_zero():
    assert graded("regression", "0", 0)["soft_accuracy"] == 1
    assert graded("regression", "1e-300", 0)["soft_accuracy"] == 0


def test_counts_are_exact_integers():
    assert [
        graded("counting", content, 7)["accuracy"] for content in ("7", "+7", "007", "7.0", "8", "seven", "7 8")
    ] == [*(1, 1, 1, 0, 0, 0, 0)]
    assert graded("counting", "10", "7")["count_error"] == 3
    assert graded("counting", "many", 7)["count_error"] is None


def test_booleans():
    right = ("yes", "Yes", "YES", "true", " yes\n")
    assert all(graded("boolean", content, "yes")["accuracy"] for content in right)
    for content in ("no", "yes no", "yes/no", "yes.", "y", "1", "maybe", ""):
        assert graded("boolean", content, True)["accuracy"] == 0
    assert graded("boolean", "false", False)["accuracy"] == 1


@pytest.mark.parametrize(
    ("content", "soft"),
    [
        ("B, A, C", 1),
        ("b->a->c", 1),
        ("[B, A, C]", 1),
        ("A, B, C", 1 / 3),
        ("C, A, B", 0),
        ("B, A", 0),
        ("B, A, C, C", 0),
    ],
)
def test_orders_by_kendalls_tau(content, soft):
    result = graded("ordering", content, TRUTHS["ordering"])
    assert result["soft_accuracy"] == pytest.approx(soft)
    assert result["accuracy"] == (soft == 1)


def edit_distance(a, b):
    """Levenshtein's recurrence, a full table."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        row, above = [i], row
        for j, right in enumerate(b, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (left != right)))
    return row[-1]


def longest_common(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, left in enumerate(a):
        for j, right in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


texts = st.lists(st.sampled_from(["a", "b", "c", "dd"]), min_size=1, max_size=9)


@given(texts, texts)
def test_text_measures_by_their_definitions(said, truth):
    assert word_error_rate(said, truth) == pytest.approx(min(1, edit_distance(said, truth) / len(truth)))
    common = longest_common(said, truth)
    precision, recall = common / len(said), common / len(truth)
    assert rouge_l(said, truth) == pytest.approx(2 * precision * recall / (precision + recall) if common else 0)
    left = list(said)
    shared = sum(1 for word in truth if word in left and left.remove(word) is None)
    assert rouge_n(said, truth, 1) == pytest.approx(2 * shared / (len(said) + len(truth)))


def test_text_is_folded_but_not_reworded():
    assert graded("ocr", "NO  parking,\n8 am to 6 pm", TRUTHS["ocr"])["accuracy"] == 1
    assert graded("ocr", "No parking 8 am to 6 pm", TRUTHS["ocr"])["wer"] == pytest.approx(1 / 7)
    assert graded("ocr", "word " * 5000, TRUTHS["ocr"])["soft_accuracy"] == 0
    assert words("Élan, 東京 42!") == ["élan", "東京", "42"]
    result = graded("open_ended", "the man leaves", TRUTHS["open_ended"])
    assert result["soft_accuracy"] == pytest.approx(2 * 2 / (3 + 9))
    assert graded("open_ended", "the man leaves", TRUTHS["open_ended"], {"measure": "rouge"})["soft_accuracy"] < 0.5
    assert graded("open_ended", "Yes", "yes", {"measure": "rouge"})["soft_accuracy"] == 1


# --- settings and truths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("temporal_grounding", {"overlap": "hull"}, "overlap: 'hull' is not one of union, best"),
        ("temporal_grounding", {"measure": "giou"}, "measure: giou compares one interval with one; set overlap=best"),
        ("temporal_grounding", {"threshold": 1.5}, "threshold: 1.5 is not a number from 0 to 1"),
        ("temporal_grounding", {"lenient": ["lower_case"]}, "lenient: .*reversed_ends"),
        ("temporal_grounding", {"mode": "soft"}, "mode: no such reward setting of task temporal_grounding; there are"),
        ("grounded_qa", {"letter_weight": 0, "interval_weight": 0}, "letter_weight: .*nothing is paid"),
        ("numeric", {"tolerance": -1}, "tolerance: -1 is not a number of at least 0"),
        ("regression", {"measure": "mse"}, "measure: 'mse' is not one of"),
        ("boolean", {"format_weight": float("nan")}, "format_weight: nan"),
        ("boolean", {"format_weight": float("inf")}, "format_weight: inf"),
        ("boolean", {"accuracy_weight": True}, "accuracy_weight: True"),
        ("boolean", {"strict_format": 1}, "strict_format: 1 is neither"),
        ("boolean", {"length_window": [512, 320]}, "length_window"),
        ("boolean", {"overlong_buffer": 2.5}, "overlong_buffer"),
        ("boolean", {"overlong_buffer": 20, "max_tokens": 10}, "overlong_buffer: 20 tokens are more than"),
        ("segmentation", {}, "task 'segmentation': no such reward task; there are boolean, counting"),
    ],
)
def test_a_bad_setting_is_named(task, settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        score(task, "", TRUTHS.get(task), settings)


@pytest.mark.parametrize(
    ("task", "truth", "message"),
    [
        ("temporal_grounding", "2 to 6", "is not JSON"),
        ("temporal_grounding", [[2, 6]], "is a list, need an object with intervals"),
        ("temporal_grounding", {"duration": 5}, "has no intervals"),
        ("temporal_grounding", {"intervals": [[2, 6]], "fps": 2}, "unknown field fps"),
        ("temporal_grounding", {"intervals": []}, r"intervals are \[\]"),
        ("temporal_grounding", {"intervals": [[6, 2]]}, r"interval \[6, 2\] needs 0 <= start < end"),
        ("temporal_grounding", {"intervals": [[2, 2]]}, "needs 0 <= start < end"),
        ("temporal_grounding", {"intervals": [[-1, 2]]}, "needs 0 <= start < end"),
        ("temporal_grounding", {"intervals": [[2, 6]], "duration": 4}, r"past the end of the video, 4 s"),
        ("temporal_grounding", {"intervals": [[2, float("nan")]]}, "bound is nan"),
        ("temporal_grounding", {"intervals": [[2, 6]], "duration": 0}, "duration is 0"),
        ("grounded_qa", {"letters": "", "intervals": [[2, 6]]}, "ground truth is empty"),
        ("tracking", {"boxes": [[0, 0, 1, 1]]}, "has no coordinates"),
        ("tracking", {"boxes": [[0, 0, 1, 1]], "coordinates": "guess"}, "coordinates is 'guess', need one of"),
        ("tracking", {"boxes": [[0, 0, 1, 1]], "coordinates": "pixel"}, "width is None"),
        ("tracking", {"boxes": [None], **FRAME}, "no box in any frame"),
        ("tracking", {"boxes": [[0, 0, 0, 1]], **FRAME}, "has no area in a frame of 1 x 1"),
        ("tracking", {"boxes": [[2, 2, 3, 3]], **FRAME}, "has no area"),
        ("spatial_grounding", {"boxes": [], **FRAME}, r"boxes are \[\]"),
        ("numeric", "twelve", "is not JSON"),
        ("numeric", {"number": "12"}, "number is '12', need a number"),
        ("numeric", {"number": 3, "unit": "3"}, "unit '3' is no unit"),
        ("regression", float("inf"), "is inf"),
        ("counting", 7.5, "is 7.5, need an integer"),
        ("counting", True, "need an integer"),
        ("boolean", "perhaps", "need yes or no"),
        ("ordering", ["A"], "no order of 2 to"),
        ("ordering", ["A", "a"], "different labels"),
        ("ordering", ["A, B", "C"], "comma"),
        ("ocr", "  ", "need a text"),
        ("open_ended", 7, "need a text"),
    ],
)
def test_a_truth_that_cannot_be_scored_is_refused_with_its_row(task, truth, message):
    with pytest.raises(ValueError, match=f"^{task}: item q9: .*{message}"):
        score(task, "", truth, info={"id": "q9"})


def test_a_true_interval_may_be_a_rounding_past_the_end():
    assert graded("temporal_grounding", "2 to 10", {"intervals": [[2, 10.4]], "duration": 10})["iou"] == 1


# --- composition ---------------------------------------------------------------------------------------------------


def test_weights_of_the_parts():
    settings = {"accuracy_weight": 0.9, "format_weight": 0.1}
    assert graded("counting", "7", 7, settings)["score"] == pytest.approx(1.0)
    assert graded("counting", "8", 7, settings)["score"] == pytest.approx(0.1)


@pytest.mark.parametrize(("tokens", "bonus"), [(319, 0), (320, 0.2), (512, 0.2), (513, 0), (None, 0)])
def test_the_length_window_of_video_r1(tokens, bonus):
    right, wrong = (graded("counting", c, 7, {"length_bonus": 0.2}, tokens=tokens) for c in ("7", "8"))
    assert (right["score"], right["length_reward"], wrong["score"]) == (pytest.approx(2 + bonus), bonus, 1)


@pytest.mark.parametrize(("tokens", "penalty"), [(50, 0), (80, 0), (90, 0.5), (100, 1), (120, 1)])
def test_the_overlong_penalty_of_dapo(tokens, penalty):
    result = graded("counting", "7", 7, {"overlong_buffer": 20, "max_tokens": 100}, tokens=tokens)
    assert result["length_reward"] == pytest.approx(-penalty)
    assert result["score"] == pytest.approx(2 - penalty)
