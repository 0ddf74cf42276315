"""vLLM gets a Qwen3-VL video as one placeholder.

Qwen3-VL's processor writes a video as a timestamp and a picture for every grid. verl 0.9.1 hands vLLM the prompt's
tokens with each *picture* collapsed to a placeholder (verl/workers/rollout/utils.py, qwen2_5_vl_dedup_image_tokens),
while vLLM puts the whole video, timestamps and all, in the place of the first and leaves the others standing: the
rollout answers another prompt than the actor trains on (https://github.com/verl-project/verl/issues/5024).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from verl_twgrpo.compat.workaround import Workaround

PROCESSOR = "Qwen3VLProcessor"
_TIMESTAMP = re.compile(r"<\d+\.\d seconds>")
_LONGEST_TIMESTAMP = 24  # tokens; one has about ten
_videos: ContextVar[Sequence[Any]] = ContextVar("videos of the request", default=())


def collapse_for_vllm(vllm_async_server: Any) -> None:
    """Collapse the videos of verl's requests to vLLM (verl/workers/rollout/vllm_rollout/vllm_async_server.py)."""
    server = vllm_async_server.vLLMHttpServer
    stock_generate, stock_dedup = server.generate, vllm_async_server.qwen2_5_vl_dedup_image_tokens

    @functools.wraps(stock_generate)
    async def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        # a task of Ray's is a context of its own, so requests do not see each other's videos
        _videos.set(kwargs.get("video_data") or ())
        return await stock_generate(self, *args, **kwargs)

    def dedup(prompt_ids: list[int], processor: Any) -> list[int]:
        return stock_dedup(one_placeholder_each(prompt_ids, processor, _videos.get()), processor)

    server.generate = generate
    vllm_async_server.qwen2_5_vl_dedup_image_tokens = dedup


def one_placeholder_each(prompt_ids: list[int], processor: Any, videos: Sequence[Any]) -> list[int]:
    """``prompt_ids`` with one placeholder for each of ``videos``, frames or (frames, metadata), if it is Qwen3-VL's."""
    if type(processor).__name__ != PROCESSOR or not videos:
        return prompt_ids
    frames = [len(video[0] if isinstance(video, tuple) else video) for video in videos]
    size = processor.video_processor.temporal_patch_size
    return collapse(
        prompt_ids,
        grids=[-(-count // size) for count in frames],
        video=processor.video_token_id,
        start=processor.vision_start_token_id,
        end=processor.vision_end_token_id,
        decode=processor.tokenizer.decode,
    )


def collapse(
    prompt_ids: list[int],
    *,
    grids: Sequence[int],
    video: int,
    start: int,
    end: int,
    decode: Callable[[list[int]], str],
) -> list[int]:
    """Replace each video, ``grids[k]`` times "<1.2 seconds>" start video.. end, by start video end.

    transformers 5.10 keeps a start and an end around the whole as well; they become the placeholder's. A prompt whose
    videos are one placeholder each already is returned as it is.

    Raises:
        ValueError: if the prompt does not hold these videos.
    """
    starts = [k for k in range(len(prompt_ids) - 1) if prompt_ids[k] == start and prompt_ids[k + 1] == video]
    ends = [prompt_ids.index(end, k) for k in starts]
    if len(starts) == len(grids) and all(_timestamp_before(prompt_ids, k, decode) is None for k in starts):
        return prompt_ids
    if len(starts) != sum(grids):
        raise ValueError(f"the prompt has {len(starts)} pictures of videos, which have {sum(grids)} temporal grids")
    collapsed, done, first = [], 0, 0
    for count in grids:
        begin = _timestamp_before(prompt_ids, starts[first], decode)
        if begin is None:
            raise ValueError(f"no timestamp in front of the video's picture at token {starts[first]} of the prompt")
        stop = ends[first + count - 1] + 1
        if begin and prompt_ids[begin - 1] == start and prompt_ids[stop : stop + 1] == [end]:
            begin, stop = begin - 1, stop + 1
        collapsed += [*prompt_ids[done:begin], start, video, end]
        done, first = stop, first + count
    return collapsed + prompt_ids[done:]


def _timestamp_before(prompt_ids: list[int], place: int, decode: Callable[[list[int]], str]) -> int | None:
    """Where the timestamp that ends at ``place`` begins."""
    for begin in range(place - 1, max(place - _LONGEST_TIMESTAMP, 0) - 1, -1):
        if _TIMESTAMP.fullmatch(decode(prompt_ids[begin:place])):
            return begin
    return None


WORKAROUND = Workaround(
    module="verl.workers.rollout.vllm_rollout.vllm_async_server",
    apply=collapse_for_vllm,
    because="hands vLLM a Qwen3-VL video as one placeholder per grid, so that it answers another prompt",
    versions="verl==0.9.1",
    link="https://github.com/verl-project/verl/issues/5024",
)
