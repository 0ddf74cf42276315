"""Question-answer inversion: its invariants, its seeds, and that the number of options gives nothing away."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_twgrpo.data.audit import audit, chi_square, to_markdown
from verl_twgrpo.data.inversion import check_inverted, invert, invert_all, invert_as_published, near_duplicates
from verl_twgrpo.data.negation import count_negations
from verl_twgrpo.data.schema import LETTERS, Item

QUESTIONS = [
    "what did the boy eat",
    "why is the dog running",
    "where are they",
    "what happened to the ball",
    "why is the cat not moving",
    "how many dogs are there",
]
THINGS = ("an apple", "two pears", "bread", "hot soup", "the red ball", "a blue hat", "milk", "some rice", "a big tree")


def items_with(count: int, options: int = 5, true: int = 1) -> list[Item]:
    """Items whose ids are their numbers; the letter that is true is not uniform, as in real files."""
    items = []
    for k in range(count):
        rng = random.Random(k)
        often = "AABCDE" if options >= 5 else "AAB"
        answers = rng.sample(LETTERS[:options], true) if true > 1 else often[k % len(often)]
        items.append(
            Item(
                id=str(k),
                source="nextgqa",
                split="train",
                question=QUESTIONS[k % len(QUESTIONS)],
                options=tuple(rng.sample(THINGS, options)),
                answers=frozenset(answers),
                video=f"{k}.mp4",
            )
        )
    return items


def texts(item: Item) -> set[str]:
    return {option for letter, option in zip(item.letters, item.options, strict=True) if letter in item.answers}


@pytest.mark.parametrize(("options", "true"), [(5, 1), (4, 2), (2, 1), (8, 5)])
def test_inverted_answers_are_the_complement_of_the_truth_among_the_options_kept(options, true):
    outcomes = invert_all(items_with(300, options, true))
    inverted = [outcome for outcome in outcomes if outcome.decision == "inverted"]
    assert len(inverted) > 50
    for outcome in inverted:
        before, after = outcome.before, outcome.after
        assert after.question != before.question and count_negations(after.question) == 1
        assert texts(after) == set(after.options) - texts(before)
        assert set(after.options) <= set(before.options)
        assert 0 < len(after.answers) < len(after.options)
        assert after.negated


def test_items_that_are_not_inverted_keep_question_and_truth():
    for outcome in invert_all(items_with(300)):
        if outcome.decision != "inverted":
            assert outcome.after.question == outcome.before.question and not outcome.after.negated
            assert texts(outcome.after) == texts(outcome.before)
            assert 0 < len(outcome.after.answers) < len(outcome.after.options)


def test_questions_that_cannot_be_negated_are_refused_with_the_reason_and_kept():
    refused = [outcome for outcome in invert_all(items_with(300)) if outcome.decision == "refused"]
    assert {outcome.reason for outcome in refused} == {"negative already", "asks for a number or a degree"}
    assert all(outcome.after.provenance["qai"]["reason"] == outcome.reason for outcome in refused)


def test_the_result_depends_on_seed_and_id_only():
    items = items_with(200)
    straight = {outcome.after.id: outcome.after for outcome in invert_all(items, seed=3)}
    some = random.Random(0).sample(items, 77)
    assert all(straight[outcome.after.id] == outcome.after for outcome in invert_all(some, seed=3))
    with ThreadPoolExecutor(4) as workers:
        parts = workers.map(lambda first: invert_all(items[first : first + 30], seed=3), range(0, 200, 30))
        assert [outcome.after for part in parts for outcome in part] == list(straight.values())
    assert [outcome.after for outcome in invert_all(items, seed=4)] != list(straight.values())


def test_items_of_one_id_in_different_sources_and_splits_are_drawn_apart(make_item):
    def decisions(**fields):
        return [invert(make_item(id=str(k), **fields)).decision for k in range(64)]

    assert len({tuple(decisions(**f)) for f in ({}, {"source": "star"}, {"split": "validation"})}) == 3


DRAWN = ["inverted BCAD", "kept ABDC", "kept DB", "inverted CBAD", "kept BADC", "kept CABD", "kept BDC", "inverted DB"]


def test_the_draw_of_a_seed_stays_the_same_over_versions(make_item):
    """A changed draw would silently change published data sets."""
    outcomes = [invert(make_item(id=str(k)), seed=1) for k in range(8)]
    drawn = [outcome.decision + " " + "".join(outcome.after.provenance["qai"]["kept"]) for outcome in outcomes]
    assert drawn == DRAWN


@pytest.mark.slow
def test_option_count_is_independent_of_inversion():
    outcomes = invert_all(items_with(5000))
    groups = [Counter(), Counter()]
    for outcome in outcomes:
        groups[outcome.decision == "inverted"][len(outcome.after.options)] += 1
    assert set(groups[0]) == set(groups[1]) == {2, 3, 4, 5}
    assert chi_square(groups)[1] > 0.001


@pytest.mark.slow
def test_the_published_procedure_fails_the_same_test():
    groups = [Counter(), Counter()]
    for outcome in invert_all(items_with(5000), paper_compatible=True):
        groups[outcome.decision == "inverted"][len(outcome.after.options)] += 1
    assert chi_square(groups)[1] < 1e-9


def guessing(outcomes) -> tuple[float, float, float]:
    """Accuracy of the most frequent answer for (option count, polarity), learnt on one half of the items and tried on
    the other; its chance level, one in (options choose answer-set size); and the standard error of the difference.
    """
    cells: dict[tuple, Counter] = {}
    half = len(outcomes) // 2
    for outcome in outcomes[:half]:
        item = outcome.after
        cells.setdefault((len(item.options), count_negations(item.question) > 0), Counter())[item.ground_truth] += 1
    right, chance, variance = 0, 0.0, 0.0
    tried = outcomes[half:]
    for outcome in tried:
        item = outcome.after
        guess = cells[(len(item.options), count_negations(item.question) > 0)].most_common(1)[0][0]
        level = 1 / math.comb(len(item.options), len(item.answers))
        right += guess == item.ground_truth
        chance += level
        variance += level * (1 - level)
    return right / len(tried), chance / len(tried), math.sqrt(variance) / len(tried)


@pytest.mark.slow
def test_a_guesser_that_sees_option_count_and_polarity_stays_at_chance():
    right, chance, error = guessing(invert_all(items_with(5000)))
    assert right <= chance + 3 * error


@pytest.mark.slow
def test_the_same_guesser_beats_chance_on_the_published_procedure():
    right, chance, error = guessing(invert_all(items_with(5000), paper_compatible=True))
    assert right > chance + 5 * error


def test_an_inverted_item_is_not_inverted_again(make_item):
    with pytest.raises(ValueError, match="nextgqa: item 7: went through an inversion already"):
        invert(invert(make_item()).after)


def test_an_item_whose_options_all_hold_is_never_inverted(make_item):
    for k in range(20):
        outcome = invert(make_item(id=str(k), options=("x",), answers=frozenset("A")))
        assert (outcome.after.options, outcome.after.ground_truth) == (("x",), "A")
        assert outcome.reason in ("", "no false option")


@given(st.integers(2, 26), st.data())
@pytest.mark.slow
def test_invariants_hold_for_any_number_of_options_and_answers(count, data):
    answers = data.draw(st.sets(st.sampled_from(LETTERS[:count]), min_size=1))
    options = tuple(f"option number {word}" for word in LETTERS[:count])
    item = Item("x", "star", "train", "what did he do", options, frozenset(answers), "v.mp4")
    outcome = invert(item, seed=data.draw(st.integers(0, 50)))
    if outcome.decision == "inverted":
        check_inverted(item, outcome.after)
    else:
        assert texts(outcome.after) <= texts(item) and outcome.after.answers


# run-time checks


@pytest.fixture
def inverted(make_item):
    outcomes = (invert(make_item(id=str(k))) for k in range(100))
    return next(o for o in outcomes if o.decision == "inverted" and len(o.after.options) == 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": "what did the boy eat"}, "the question is unchanged"),
        ({"question": "what didn't the boy not eat"}, "2 negations"),
        ({"answers": frozenset("ABCD")}, "every option is true"),
        ({"answers": frozenset("A")}, "not the complement"),
        ({"options": ("x", "y", "z", "w")}, "not the complement"),
    ],
)
def test_an_unsound_inversion_is_caught_at_run_time(inverted, change, message):
    check_inverted(inverted.before, inverted.after)
    with pytest.raises(ValueError, match=message):
        check_inverted(inverted.before, dataclasses.replace(inverted.after, **change))


# near-duplicate options


@pytest.mark.parametrize(
    ("options", "repeated"),
    [
        (["walk away", "walks away", "run"], [1]),
        (["dance", "dancing", "danced"], [1, 2]),
        (["The scarf.", "scarf"], [1]),
        (["a cat", "a hat", "the bat"], []),
        (["2.5", "25", "2,5"], []),
        (["10 m", "10 cm"], []),
        (["on the left", "on the right"], []),
        (["A", "B"], []),
        (["♥", "♦"], []),
    ],
)
def test_options_that_say_the_same_are_found(options, repeated):
    assert near_duplicates(options) == repeated


def test_options_that_say_the_same_are_never_kept_together(make_item):
    for k in range(50):
        options = ("walks away", "walk away", "sit", "sitting", "run")
        outcome = invert(make_item(id=str(k), options=options, answers=frozenset("B")))
        assert set(outcome.near_duplicates) == {"walks away", "sitting"}
        assert not near_duplicates(outcome.after.options)
        assert "walks away" not in outcome.after.options and "walk away" in outcome.after.options


# the audit


def test_the_audit_adds_up_and_reads_well():
    outcomes = invert_all(items_with(600))
    report = json.loads(json.dumps(audit(outcomes)))
    assert report["items"] == report["inverted"] + report["kept"] + report["refused"] == 600
    assert sum(report["refused_by_reason"].values()) == report["refused"] > 0
    for key in ("option_count", "answer_set_size"):
        assert sum(report[key]["inverted"].values()) == report["inverted"]
        assert sum(report[key]["not_inverted"].values()) == 600 - report["inverted"]
    assert report["inverted_with_unchanged_question"] == 0 and report["double_negations"] == []
    assert report["negative_before_inversion"] == 100
    page = to_markdown(report)
    assert f"| inverted | {report['inverted']} |" in page and "| negative already |" in page
    assert all(example["after"] in page for example in report["examples"])


def test_the_audit_of_the_published_procedure_finds_its_faults():
    report = audit(invert_all(items_with(600), paper_compatible=True))
    assert report["inverted_with_unchanged_question"] > 0
    assert len(report["double_negations"]) > 0
    assert report["option_count"]["p_value"] < 1e-6


def test_chi_square_agrees_with_a_value_worked_by_hand():
    # [[10, 20], [20, 10]]: every expected count is 15, so 4 * 25 / 15; one degree of freedom
    statistic, p_value = chi_square([Counter({2: 10, 3: 20}), Counter({2: 20, 3: 10})])
    assert statistic == pytest.approx(100 / 15)
    assert p_value == pytest.approx(math.erfc(math.sqrt(100 / 15 / 2)))


# the published procedure


def test_paper_compatible_items_lose_options_only_when_inverted():
    for outcome in invert_all(items_with(400), paper_compatible=True):
        if outcome.decision == "kept":
            assert dataclasses.replace(outcome.after, provenance={}) == outcome.before
        else:
            assert texts(outcome.after) == set(outcome.after.options) - texts(outcome.before)
            assert texts(outcome.before) <= set(outcome.after.options)


def test_the_published_procedure_is_refused_for_questions_with_several_answers(make_item):
    outcomes = [invert_as_published(make_item(id=str(k), answers=frozenset("AB"))) for k in range(20)]
    assert {outcome.decision for outcome in outcomes} == {"kept", "refused"}
