"""vLLM gets one placeholder for each video of a Qwen3-VL prompt."""

import asyncio
from types import SimpleNamespace

import pytest
import torch
import verl  # noqa: F401 - loads the plugin

from verl_twgrpo.compat.timestamped_prompts import collapse, collapse_for_vllm
from verl_twgrpo.mini_clevrer.model.tokenizer import build_tokenizer

START, VIDEO, END = "<|vision_start|>", "<|video_pad|>", "<|vision_end|>"


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def ids(tokenizer, text):
    return tokenizer(text)["input_ids"]


def expanded(times, tokens=3, outer=True):
    """A video as Qwen3-VL's processor writes it; transformers before 5.10 writes no outer pair."""
    inner = "".join(f"<{time:.1f} seconds>{START}{VIDEO * tokens}{END}" for time in times)
    return START + inner + END if outer else inner


PLACEHOLDER = START + VIDEO + END
TEXTS = {
    "one": ("see {0} now", [[0.2, 1.5, 12.0]]),
    "two in a row": ("{0}{1} which?", [[0.2, 1.5], [0.3, 0.3, 100.4]]),
    "one grid": ("{0} ", [[0.0]]),
    "text that ends like a timestamp": ("at <3 {0} it goes on <1.0 seconds>", [[0.2, 1.5]]),
}


@pytest.mark.parametrize("outer", [True, False], ids=["transformers 5.10", "before"])
@pytest.mark.parametrize(("text", "videos"), TEXTS.values(), ids=TEXTS)
def test_videos_become_placeholders(tokenizer, text, videos, outer):
    whole = ids(tokenizer, text.format(*[expanded(times, outer=outer) for times in videos]))
    found = collapse(
        whole,
        grids=[len(times) for times in videos],
        video=ids(tokenizer, VIDEO)[0], start=ids(tokenizer, START)[0], end=ids(tokenizer, END)[0],
        decode=tokenizer.decode,
    )  # fmt: skip
    assert tokenizer.decode(found) == text.format(*[PLACEHOLDER] * len(videos))


def server_module(processor):
    """As much of verl/workers/rollout/vllm_rollout/vllm_async_server.py as is wrapped."""

    class vLLMHttpServer:
        async def generate(self, prompt_ids, request_id, video_data=None):
            await asyncio.sleep(0)
            return module.qwen2_5_vl_dedup_image_tokens(prompt_ids, processor)

    from verl.workers.rollout.utils import qwen2_5_vl_dedup_image_tokens

    module = SimpleNamespace(vLLMHttpServer=vLLMHttpServer, qwen2_5_vl_dedup_image_tokens=qwen2_5_vl_dedup_image_tokens)
    return module


@pytest.fixture
def server(tokenizer, video_models):
    """verl's server and three requests to it: (prompt, videos, what vLLM is to get)."""
    from verl.utils import hf_processor

    module = server_module(hf_processor(str(video_models["qwen3_vl"])))
    frames = torch.zeros(4, 3, 4, 4)
    requests = [
        (f"{expanded([0.2, 1.5])}?", [(frames, {})], f"{PLACEHOLDER}?"),
        ("no video?", None, "no video?"),
        (f"{expanded([0.2, 1.5])}{expanded([3.0])}", [frames, frames[:2]], PLACEHOLDER * 2),
    ]

    async def ask():
        made = module.vLLMHttpServer()
        calls = [
            made.generate(prompt_ids=ids(tokenizer, text), request_id="r", video_data=videos)
            for text, videos, _ in requests
        ]
        return [tokenizer.decode(found) for found in await asyncio.gather(*calls)]

    return module, lambda: asyncio.run(ask()), [wanted for *_, wanted in requests]


def test_verls_server_asks_vllm_for_each_video_once(server):
    module, ask, expected = server
    collapse_for_vllm(module)
    assert ask() == expected


@pytest.mark.upstream_bug
def test_verl_leaves_a_placeholder_for_every_grid(server):
    _, ask, expected = server
    assert ask() != expected


def test_a_prompt_without_its_videos_is_said(tokenizer):
    with pytest.raises(ValueError, match="2 pictures of videos, which have 3 temporal grids"):
        collapse(
            ids(tokenizer, expanded([0.2, 1.5])), grids=[3],
            video=ids(tokenizer, VIDEO)[0], start=ids(tokenizer, START)[0], end=ids(tokenizer, END)[0],
            decode=tokenizer.decode,
        )  # fmt: skip
