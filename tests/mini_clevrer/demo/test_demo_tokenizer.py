"""The word-level tokenizer: lossless, short, and with what Qwen2.5-VL's users look up."""

from __future__ import annotations

import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from verl_twgrpo.data.prompts import messages
from verl_twgrpo.mini_clevrer.model.tokenizer import SPECIAL_TOKENS, build_tokenizer, phrases
from verl_twgrpo.mini_clevrer.world import Difficulty, draw
from verl_twgrpo.mini_clevrer.world.source import to_item
from verl_twgrpo.mini_clevrer.world.thoughts import response

TOKENIZER = build_tokenizer()


@given(st.lists(st.sampled_from([*phrases(), *string.printable]), max_size=40).map("".join))
def test_any_ascii_text_round_trips(text):
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == text


def test_a_character_outside_ascii_is_unknown_and_breaks_nothing():
    assert TOKENIZER("é red")["input_ids"][0] == TOKENIZER.unk_token_id


def test_the_special_tokens_of_qwen_are_single_tokens_that_decoding_can_skip():
    for token in SPECIAL_TOKENS:
        assert TOKENIZER(token)["input_ids"] == [TOKENIZER.convert_tokens_to_ids(token)]
    assert TOKENIZER.decode(TOKENIZER("<|im_start|>red<|im_end|>")["input_ids"], skip_special_tokens=True) == "red"
    assert (TOKENIZER.eos_token, TOKENIZER.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_the_answer_tags_survive_skipping_special_tokens():
    text = "<think>A: yes. </think><answer>A,C</answer>"
    ids = TOKENIZER(text + "<|im_end|>")["input_ids"]
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == text
    assert len(ids) == 3 + 1 + 5 + 1


def test_newline_is_one_token_as_verl_asks_of_qwen():
    assert len(TOKENIZER.encode("\n", add_special_tokens=False)) == 1


@pytest.mark.parametrize("index", range(5))
def test_prompts_and_responses_are_short_and_have_no_letters_spelt_out(index):
    drawn = draw("train", index, 0, Difficulty())
    chat = messages(to_item(drawn, "x", "train", "x.mp4"))
    content = [{"type": "video"}, {"type": "text", "text": chat[0]["content"].removeprefix("<video>")}]
    chat = [{"role": "user", "content": content}]
    ids = TOKENIZER(TOKENIZER.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))["input_ids"]
    assert len(ids) == 35
    thinking = response(np.random.default_rng(index), drawn.world, drawn.question, objects=4, terse=0.5)
    ids += TOKENIZER(thinking)["input_ids"]
    spelt = {token for token in TOKENIZER.convert_ids_to_tokens(ids) if token in string.ascii_lowercase}
    assert not spelt


def test_the_chat_template_takes_texts_and_parts_and_asks_for_the_next_turn():
    parts = [{"type": "video"}, {"type": "text", "text": "red"}]
    chat = [{"role": "system", "content": "blue"}, {"role": "user", "content": parts}]
    text = TOKENIZER.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert text == (
        "<|im_start|>system\nblue<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>red<|im_end|>\n<|im_start|>assistant\n"
    )
    answered = TOKENIZER.apply_chat_template([*chat, {"role": "assistant", "content": "A"}], tokenize=False)
    assert answered == text + "A<|im_end|>\n"


def test_saved_files_give_the_same_tokenizer(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|im_start|>user\nWithout the red circle, what will happen?\nA The blue square<|im_end|>"
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert loaded.chat_template == TOKENIZER.chat_template and loaded.eos_token_id == TOKENIZER.eos_token_id
