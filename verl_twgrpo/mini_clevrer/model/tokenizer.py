"""A word-level tokenizer for mini-CLEVRER: set phrases are one token each, any other ASCII text falls back to letters.

The prompt is 34 tokens and the video's, so that a tiny model spends its attention on the objects, not on spelling.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from verl_twgrpo.data.prompts import PROMPTS
from verl_twgrpo.data.schema import LETTERS
from verl_twgrpo.mini_clevrer.world import moments, physics, questions, shown, thoughts

PAD, END_OF_TURN, UNKNOWN = "<|endoftext|>", "<|im_end|>", "<|unknown|>"
VIDEO_PAD, IMAGE_PAD = "<|video_pad|>", "<|image_pad|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
# the special tokens of Qwen2.5-VL by their own names: processors, verl and vLLM look some of them up
SPECIAL_TOKENS = (
    PAD, "<|im_start|>", END_OF_TURN, "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>", VISION_START, VISION_END, "<|vision_pad|>", IMAGE_PAD, VIDEO_PAD, UNKNOWN,
)  # fmt: skip

# ChatML as Qwen writes it, without the default system turn
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def phrases() -> tuple[str, ...]:
    """Every text that is one token: tags, roles, the words of the questions, of the prompt and of the thinking."""
    prompt = PROMPTS["clevrer"]
    found = ["<think>", "</think>", "<answer>", "</answer>", "system\n", "user\n", "assistant\n"]
    found += physics.COLOURS
    found += [f" {shape}" for shape in physics.SHAPES]
    for text in (questions.COUNTERFACTUAL, questions.DESCRIPTIVE, questions.OPTION, prompt.layout):
        found += [piece for piece in re.split(r"\{\w*\}", text) if len(piece) > 1]
    found += [prompt.option.format(letter=letter, text=questions.OPTION.split("{")[0]) for letter in LETTERS[:6]]
    found += thoughts.PHRASES
    found += shown.PHRASES
    return tuple(dict.fromkeys(found))


def task_phrases() -> tuple[str, ...]:
    """What is one token besides in the questions of other tasks (``world/moments.py``), and in their prompts."""
    prompts = [PROMPTS[task].layout for task in ("temporal_grounding", "counting")]
    pieces = [piece for layout in prompts for piece in re.split(r"\{\w*\}|(</?\w+>)", layout) if piece]
    return tuple(dict.fromkeys((*moments.PHRASES, *(piece for piece in pieces if len(piece) > 1))))


def build_tokenizer(more: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """The tokenizer: special tokens, then phrases and ``more`` of them, then characters; text round-trips exactly."""
    whole = tuple(dict.fromkeys((*phrases(), *more)))
    vocabulary = {token: k for k, token in enumerate(dict.fromkeys((*SPECIAL_TOKENS, *whole, *string.printable)))}
    longest_first = "|".join(re.escape(phrase) for phrase in sorted(whole, key=len, reverse=True))
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    # what no phrase matches is cut into characters
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"{longest_first}|[\\s\\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END_OF_TURN,
        unk_token=UNKNOWN,
        additional_special_tokens=[t for t in SPECIAL_TOKENS if t not in (PAD, END_OF_TURN, UNKNOWN)],
        clean_up_tokenization_spaces=False,
        model_max_length=32768,
        chat_template=CHAT_TEMPLATE,
    )
