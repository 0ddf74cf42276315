"""The oracle's weights, and which tokens wrote a word."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from verl_twgrpo.algorithm.weightings import make_weighting, weigh_groups
from verl_twgrpo.algorithm.weightings.base import Group
from verl_twgrpo.algorithm.weightings.oracle import mark_decisive, read_decisive
from verl_twgrpo.algorithm.weightings.text import response_text


def byte_tokenizer() -> Tokenizer:
    """One token a byte, as a byte-level tokenizer splits characters that it does not know."""
    letters = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE({letter: k for k, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return tokenizer


BYTES = byte_tokenizer()


def spaced(words):
    """A decoder that puts spaces between words, and none before the first of what it is given."""
    return lambda ids: " ".join(words[k] for k in ids)


@settings(max_examples=50, deadline=None)
@given(st.text(st.sampled_from("ab é漢🎬\n"), max_size=12))
def test_text_and_spans_are_those_of_the_whole_even_where_a_character_takes_several_tokens(text):
    ids = BYTES.encode(text).ids
    made = response_text(ids, BYTES.decode)
    assert made.text == text
    places = [k for k, character in enumerate(text) for _ in character.encode()]
    assert made.spans == [(k, k + 1) for k in places]


def test_a_response_cut_within_a_character_keeps_all_its_tokens():
    ids = BYTES.encode("ab漢").ids[:-1]
    made = response_text(ids, BYTES.decode)
    assert len(made.spans) == len(ids) and made.text.startswith("ab")


def test_words_are_found_whole_and_across_tokens():
    words = ["the", "red", "ball", "A", "And", "hit"]
    made = response_text([0, 1, 2, 4, 3], spaced(words))
    assert made.text == "the red ball And A"
    assert mark_decisive(made, ["red ball", "A"]).tolist() == [0, 1, 1, 0, 1]
    assert mark_decisive(made, ["Red", "bal"]).tolist() == [0] * 5
    assert mark_decisive(response_text([], spaced(words)), ["A"]).tolist() == []


def test_oracle_by_hand():
    made = [response_text(ids, spaced(["it", "is", "yes", "no"])) for ids in ([0, 1, 2], [0, 1], [3, 3])]
    columns = {"decisive": [mark_decisive(text, ["yes", "no"]) for text in made]}
    masks = [(text.tokens_of_words([]) | True) for text in made]
    group = Group("a", [0, 1, 2], masks, columns)
    weigh_groups(make_weighting("oracle", {"high": 2.0, "low": 0.5}), [group])
    # the second response has none of the words: nothing is known of it
    assert [w.tolist() for w in group.weights] == [[0.5, 0.5, 2.0], [1.0, 1.0], [2.0, 2.0]]


def test_what_a_row_can_say():
    assert read_decisive(None) == [] and read_decisive(["yes", "no way"]) == ["yes", "no way"]
    for bad in ("yes", [""], [1], {"yes": 1}):
        with pytest.raises(ValueError, match="need a list of words or phrases, got "):
            read_decisive(bad)


def test_low_above_high_is_refused():
    with pytest.raises(ValueError, match=r"^low=2.0: above high=1.7"):
        make_weighting("oracle", {"low": 2.0})
