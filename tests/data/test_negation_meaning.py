"""Inverted why and how questions keep what they take for granted; the paper's wording stays available."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_twgrpo import cli
from verl_twgrpo.data.audit import audit, to_markdown
from verl_twgrpo.data.inversion import invert, invert_all
from verl_twgrpo.data.meaning import agreement_slip, negate_in_meaning, nothing_among, presupposes
from verl_twgrpo.data.negation import CannotNegate, count_negations, negate
from verl_twgrpo.data.parquet import FrameLimits, read_parquet, write_parquet


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("why did the girl take the two sticks", "which of these is not a reason why the girl took the two sticks"),
        ("Why does the boy in red run away?", "Which of these is not a reason why the boy in red runs away?"),
        ("why do the men clap", "which of these is not a reason why the men clap"),
        ("why is the man holding a rope", "which of these is not a reason why the man is holding a rope"),
        ("why was the cake eaten", "which of these is not a reason why the cake was eaten"),
        ("how did the dog enter the room", "which of these is not how the dog entered the room"),
        ("how can the two babies move forward", "which of these is not how the two babies can move forward"),
        ("why has the cat fallen", "which of these is not a reason why the cat has fallen"),
        ("why's the dog barking?", "which of these is not a reason why the dog is barking?"),
        ("After the man fell, why did he laugh?", "After the man fell, which of these is not a reason why he laughed?"),
        (
            "why did the boy smile when the man waved",
            "which of these is not a reason why the boy smiled when the man waved",
        ),
        # where the subject ends cannot be told
        ("why is the baby happy", "which of these is not an answer to this: why is the baby happy"),
        ("Why did the cook dress up?", "Which of these is not an answer to this: why did the cook dress up?"),
        ("why does the man seems tired", "which of these is not an answer to this: why does the man seems tired"),
        # the negated verb says what the answers mean
        ("what did the boy eat", "what didn't the boy eat"),
        ("who is holding the ball", "who isn't holding the ball"),
        ("where did the dog run", "where didn't the dog run"),
    ],
)
def test_questions_are_reworded_so_that_they_mean_their_answers(question, expected):
    assert negate_in_meaning(question) == expected
    assert count_negations(expected) == 1 and not presupposes(expected)


@pytest.mark.parametrize("question", ["why is the man not moving", "how many dogs are there", "why the man bend down"])
def test_what_cannot_be_negated_is_refused_in_either_wording(question):
    for wording in (negate, negate_in_meaning):
        with pytest.raises(CannotNegate):
            wording(question)


WORDS = """what why how did does is was can has the boy girl in red ball take run hold holding eaten fallen happy
seems when after he , ? ."""


@pytest.mark.slow
@settings(max_examples=400)
@given(st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=10).map(" ".join))
def test_any_words_are_refused_or_reworded_with_one_negation_and_all_content_words(question):
    try:
        reworded = negate_in_meaning(question)
    except CannotNegate:
        with pytest.raises(CannotNegate):
            negate(question)
        return
    assert reworded != question and count_negations(reworded) == 1
    for word in ("boy", "girl", "red", "ball", "happy", "eaten", "holding"):
        assert reworded.count(word) >= question.count(word)


def test_the_papers_wording_presupposes_and_ours_does_not():
    for question in ("why did the girl take the sticks", "how is the man moving"):
        assert presupposes(negate(question)) and not presupposes(negate_in_meaning(question))
    assert not presupposes("what didn't the boy eat")


def inverted(item, **how):
    return next(found for seed in range(50) if (found := invert(item, seed, **how)).decision != "kept")


def test_the_same_items_options_and_answers_come_in_either_wording(make_item):
    items = [make_item(id=str(k), question="why did the boy laugh") for k in range(60)]
    ours, papers = (invert_all(items, negation=name) for name in ("meaning", "paper"))
    assert [one.decision for one in ours] == [one.decision for one in papers]
    for one, other in zip(ours, papers, strict=True):
        assert (one.after.options, one.after.answers) == (other.after.options, other.after.answers)
    asked = {one.after.question for one in papers if one.decision == "inverted"}
    assert asked == {"why didn't the boy laugh"}


@pytest.mark.parametrize("option", ["nothing", "None of the above.", " No one "])
def test_an_option_like_nothing_is_not_put_beside_a_negated_question(option, make_item):
    item = make_item(options=("an apple", option, "soup"), answers=frozenset("A"))
    assert nothing_among(item.options) and not nothing_among(["a thing", "noone's hat"])
    outcome = inverted(item)
    assert outcome.decision == "refused" and "'nothing'" in outcome.reason
    assert inverted(item, negation="paper").decision == "inverted"


def test_the_audit_counts_them(make_item):
    items = [make_item(id=f"w{k}", question="why did the boy laugh") for k in range(40)]
    items += [make_item(id=f"s{k}", question="why does the boy seems sad") for k in range(40)]
    items += [make_item(id=f"n{k}", options=("a", "nothing", "b")) for k in range(40)]
    for negation in ("meaning", "paper"):
        report = audit(invert_all(items, negation=negation))
        counts = report["why_or_how"]
        assert counts["inverted"] > 20
        assert counts["presuppose_what_did_not_happen"] == (counts["inverted"] if negation == "paper" else 0)
        assert (report["nothing_among_inverted_options"] > 0) == (negation == "paper")
        assert report["agreement_slips"] > 5
        assert f"| ... that presuppose what did not happen | {counts['presuppose_what_did_not_happen']} |" in (
            to_markdown(report)
        )
    assert agreement_slip("why doesn't he seems sad") and not agreement_slip("why doesn't he seem sad")


def test_the_command_takes_either_and_refuses_what_has_no_effect(make_item, tmp_path, capsys):
    items = [make_item(id=str(k), question="why did the boy laugh") for k in range(20)]
    path = str(write_parquet(items, tmp_path / "a.parquet", limits=FrameLimits(nframes=4)))
    found = {}
    for name, options in {"default": [], "paper": ["--negation", "paper"]}.items():
        out = tmp_path / f"{name}.parquet"
        assert cli.main(["data", "invert", path, "--out", str(out), *options]) == 0
        found[name] = {item.question for item in read_parquet(out) if item.negated}
    assert found["default"] == {"which of these is not a reason why the boy laughed"}
    assert found["paper"] == {"why didn't the boy laugh"}
    note = read_parquet(tmp_path / "paper.parquet")[0].provenance["qai"]
    assert json.dumps(note) and note["negation"] == "paper"
    words = ["data", "invert", path, "--out", str(tmp_path / "c.parquet"), "--paper-compatible", "--negation", "paper"]
    assert cli.main(words) == 2 and "--negation has no effect" in capsys.readouterr().err
