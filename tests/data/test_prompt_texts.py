"""The prompt texts of the paper, by source, as verl's chat messages."""

from __future__ import annotations

import pytest

from verl_twgrpo.data.inversion import invert
from verl_twgrpo.data.prompts import PROMPTS, messages, prompt_name

APPENDIX_C = (
    "Output the thinking process in <think></think> and the final answer (letters separated by commas, if multiple) in "
    "<answer></answer> tags."
)


def text_of(item, prompt=None) -> str:
    (turn,) = messages(item, prompt)
    assert turn["role"] == "user"
    return turn["content"]


@pytest.mark.parametrize("source", ["clevrer", "mini_clevrer"])
def test_clevrer_is_asked_in_the_words_of_appendix_c(source, make_item):
    item = make_item(source=source, question="What will happen?", options=("The cube moves", "Nothing"))
    assert text_of(item) == f"<video>What will happen?\nA The cube moves\nB Nothing {APPENDIX_C}"


@pytest.mark.parametrize("source", ["nextgqa", "star", "mmvu", "mvbench", "tempcompass", "videomme"])
def test_single_answer_sources_are_asked_in_the_words_of_video_r1(source, make_item):
    text = text_of(make_item(source=source, question="Why?", options=("x", "y")))
    assert text.startswith("<video>Why?Options:\nA. x\nB. y\n Please think about this question as if you were a human")
    assert text.endswith(
        "then give your final answer between the <answer> and </answer> tags. Please provide only the single option "
        "letter (e.g., A, B, C, D, etc.) within the <answer> </answer> tags."
    )


def test_inverted_items_and_those_beside_them_are_asked_alike(make_item):
    outcomes = [invert(make_item(id=str(k))) for k in range(20)]
    assert {outcome.decision for outcome in outcomes} == {"inverted", "kept"}
    assert {prompt_name(outcome.after) for outcome in outcomes} == {"clevrer"}
    assert all(text_of(outcome.after).endswith(APPENDIX_C) for outcome in outcomes)


def test_a_prompt_can_be_chosen_by_name(make_item):
    assert "final answer (select one letter)" in text_of(make_item(), "released_single")


@pytest.mark.parametrize("name", list(PROMPTS))
def test_every_prompt_shows_question_and_every_lettered_option(name, make_item):
    item = make_item(question="Is {this} %s kept?", options=tuple(f"option {{{k}}}" for k in range(26)))
    text = text_of(item, name)
    assert text.count("<video>") == 1 and text.startswith("<video>Is {this} %s kept?")
    for letter, option in zip(item.letters, item.options, strict=True):
        assert f"{letter} {option}" in text or f"{letter}. {option}" in text


@pytest.mark.parametrize("word", ["<video>", "<image>", "<audio>"])
def test_text_that_verl_would_take_for_an_input_is_refused(word, make_item):
    with pytest.raises(ValueError, match=f"nextgqa: item 7: [a-zA-Z]+: the text contains {word}"):
        messages(make_item(question=f"what is {word} for"))


def test_a_source_without_a_prompt_is_refused_naming_the_known_ones(make_item):
    with pytest.raises(ValueError, match="no prompt for this source .known: .*clevrer"):
        messages(make_item(source="other"))
