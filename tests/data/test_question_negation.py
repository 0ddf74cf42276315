"""Negation by rule: what the grammar allows, and a reason where it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_twgrpo.data.negation import CannotNegate, count_negations, negate, negate_as_published
from verl_twgrpo.data.verbs import PARTICIPLE, PAST, PRESENT


@pytest.mark.parametrize(
    ("question", "negated"),
    [
        # the auxiliary in second place
        ("why did the boy pick up one present", "why didn't the boy pick up one present"),
        ("what is the man doing", "what isn't the man doing"),
        ("how can the two babies move forward", "how can't the two babies move forward"),
        ("What will happen without the cyan object?", "What won't happen without the cyan object?"),
        ("What would happen if he left?", "What wouldn't happen if he left?"),
        ("what has the man done", "what hasn't the man done"),
        ("WHAT IS THIS?", "WHAT ISN'T THIS?"),
        # behind a noun phrase
        ("which direction did the baby push the toy", "which direction didn't the baby push the toy"),
        ("which side of the phone did the person show", "which side of the phone didn't the person show"),
        ("what activity is being carried out by the group", "what activity isn't being carried out by the group"),
        ("which man holding the ball is smiling", "which man holding the ball isn't smiling"),
        ("In which direction does the sphere move?", "In which direction doesn't the sphere move?"),
        ("where in the house are they", "where in the house aren't they"),
        # behind another clause or sentence
        ("If the cube is removed, which event will happen?", "If the cube is removed, which event won't happen?"),
        ("When the man fell, what did he do?", "When the man fell, what didn't he do?"),
        ("At the end of the video what was she holding", "At the end of the video what wasn't she holding"),
        ('The sign says "Stop". What is next?', 'The sign says "Stop". What isn\'t next?'),
        # not the auxiliary of a later clause
        ("what happens after the gate was opened", "what doesn't happen after the gate was opened"),
        ("what happened to the boy he is playing with", "what didn't happen to the boy he is playing with"),
        # contractions
        ("what's the man doing", "what isn't the man doing"),
        ("What’re they eating?", "What aren't they eating?"),
        ("who'll win", "who won't win"),
        # do-support, past and present
        ("what happened after the lady fell", "what didn't happen after the lady fell"),
        ("who finished the food first", "who didn't finish the food first"),
        ("who stopped the car", "who didn't stop the car"),
        ("who cried", "who didn't cry"),
        ("who danced", "who didn't dance"),
        ("who fell", "who didn't fall"),
        ("who cut the cake", "who didn't cut the cake"),
        ("what makes the boy laugh", "what doesn't make the boy laugh"),
        ("which man wears a hat", "which man doesn't wear a hat"),
        ("which people play music", "which people don't play music"),
        ("whose dog barks", "whose dog doesn't bark"),
        ("Which man quickly opened the door?", "Which man didn't quickly open the door?"),
        ("Which of the following best describes it?", "Which of the following doesn't best describe it?"),
        # "have" as a main verb and as an auxiliary
        ("who has the ball?", "who doesn't have the ball?"),
        ("Who has eaten the cake?", "Who hasn't eaten the cake?"),
        # no contraction
        ("what may happen next?", "what may not happen next?"),
    ],
)
def test_questions_are_negated_where_the_grammar_puts_it(question, negated):
    assert negate(question) == negated


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("why is the man not moving", "negative already"),
        ("what didn’t he do", "negative already"),
        ("what isnt there", "negative already"),
        ("why did nt the man play", "negative already"),
        ("why didn t the man play", "negative already"),
        ("why is the man unable to ride", "negative already"),
        ("what does the boy do when the page does not hold still", "negative already"),
        ("did the boy get down", "yes/no question"),
        ("Are there any blue cubes?", "yes/no question"),
        ("how many people are in the video", "number or a degree"),
        ("how long did he sleep", "number or a degree"),
        ("why the man bend down", "no auxiliary after 'why'"),
        ("why deos the man walk", "no auxiliary after 'why'"),
        ("what ddi the performers do after facing right", "no verb that is known"),
        ("how happpened to the boy", "no auxiliary after 'how'"),
        ("what's happened here", "stands for more than one auxiliary"),
        ("where'd he go", "stands for more than one auxiliary"),
        ("what do you think he is doing", "opinion"),
        ("what has the man in his hand", "'have' as a main verb"),
        ("what may the man do", "has no contraction"),
        ("what am I holding", "'am' has no contraction"),
        ("who gesticulated", "no verb that is known"),
        ("which man dressed in red opened the door", "more than one verb"),
        ("What is the width? What is the height?", "more than one question"),
        ("describe the man", "no question word"),
        ("what is", "nothing follows"),
        ("", "empty question"),
    ],
)
def test_questions_beyond_the_rules_are_refused_with_a_reason(question, reason):
    with pytest.raises(CannotNegate, match=reason):
        negate(question)


WORDS = (
    """what who which why how did does is was the boy ball n't not no fell happens after when what's do been , ? ."""
)


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(WORDS.split()), max_size=12).map(" ".join)))
def test_any_text_is_refused_or_changed_by_exactly_one_negation(text):
    try:
        negated = negate(text)
    except CannotNegate as refusal:
        assert str(refusal)
    else:
        assert negated != text and count_negations(text) == 0 and count_negations(negated) == 1


def test_negating_twice_is_refused():
    with pytest.raises(CannotNegate, match="negative already"):
        negate(negate("what did the boy eat"))


def test_verb_forms_are_spelt_as_english_does():
    past = {"stopped": "stop", "carried": "carry", "opened": "open", "took": "take", "played": "play", "cut": "cut"}
    assert {form: PAST[form] for form in past} == past
    present = {"watches": "watch", "carries": "carry", "goes": "go", "has": "have", "plays": "play"}
    assert {form: PRESENT[form] for form in present} == present
    assert "eaten" in PARTICIPLE


@pytest.mark.parametrize(
    ("question", "negated"),
    [
        ("What will the person do next?", "what won't the person do next?"),
        ("What happened after the person ate?", "what didn't happen after the person ate?"),
        ("Which object was put down?", "which object was put down?"),
        ("What did the person do?", "what didn't the person do?"),
    ],
)
def test_the_published_star_rules_have_their_own_list(question, negated):
    assert negate_as_published(question, "star") == negated
