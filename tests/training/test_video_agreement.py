"""Rollout and actor see the same video at the same time: verl's and vLLM's own code on both sides, without weights."""

import pytest
import torch
import verl  # noqa: F401 - loads the plugin
from PIL import Image

pytest.importorskip("vllm.model_executor.models.qwen2_5_vl", reason="compares with vLLM's processor")

from verl_twgrpo.training.video_agreement import ActorSide, RolloutSide, differences, synthetic, wrong_time  # noqa: E402

# vLLM is imported for them
pytestmark = pytest.mark.slow

# design of the released models: int(grid * 2 frames / rate * 2 tokens per second); Qwen2-VL counts grids, and
# Qwen3-VL writes the time into the prompt
TIMES = {
    ("qwen2_5_vl", 5.12, 16): [0, 1, 2, 3, 5, 6, 7, 8],
    ("qwen2_5_vl", 40.0, 16): [0, 10, 20, 30, 40, 50, 60, 70],
    ("qwen2_5_vl", 5.12, 32): [0, 0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8, 8, 9],
    ("qwen2_5_vl", 40.0, 32): list(range(0, 80, 5)),
    ("qwen2_vl", 5.12, 16): list(range(8)),
    ("qwen2_vl", 40.0, 32): list(range(16)),
}


@pytest.fixture(scope="module")
def sides(video_models):
    made = {}

    def both(kind):
        if kind not in made:
            actor = ActorSide(str(video_models[kind]))
            made[kind] = actor, RolloutSide(str(video_models[kind]), actor.processor)
        return made[kind]

    return both


def user(*parts):
    """A user turn: "<video>" and "<image>" stand for pictures."""
    kinds = {"<video>": {"type": "video"}, "<image>": {"type": "image"}}
    return [{"role": "user", "content": [kinds.get(part, {"type": "text", "text": part}) for part in parts]}]


def see(sides, messages, videos=None, images=None):
    actor, rollout = sides
    ours = actor.see(messages, videos, images)
    theirs = rollout.see(ours.prompt_ids, videos, images)
    assert differences(ours, theirs) == []
    return ours, theirs, actor.processor


@pytest.mark.parametrize(("kind", "seconds", "frames"), TIMES)
def test_time_coordinates_are_true_on_both_sides(sides, kind, seconds, frames):
    ours, theirs, processor = see(sides(kind), user("<video>", "what?"), [synthetic(seconds, frames)])
    for side in (ours, theirs):
        assert side.time_of_videos(processor.video_token_id) == [TIMES[kind, seconds, frames]]


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_two_videos_in_a_row_and_an_image_between_text(sides, kind):
    images = [Image.new("RGB", (96, 64), "red")]
    videos = [synthetic(5.12, 16), synthetic(40.0, 32), synthetic(3.0, 8)]
    messages = user("see ", "<video>", "<video>", "and", "<image>", "then", "<video>", "what?")
    ours, theirs, processor = see(sides(kind), messages, videos, images)
    assert len(ours.video_grids) == 3
    assert wrong_time(ours, processor, videos) == []
    text_3T = ours.positions[:, -6:]
    assert torch.equal(text_3T, text_3T[:1].expand(3, -1)), "the text behind is text"
    assert int(text_3T[0, 0]) > int(ours.positions[:, :-6].max()), "and goes on behind the largest position"


def test_qwen3_vl_writes_the_true_time_into_the_prompt(sides):
    actor, _ = sides("qwen3_vl")
    ours, theirs, _ = see(sides("qwen3_vl"), user("<video>", "<video>"), [synthetic(5.12, 4), synthetic(40.0, 4)])
    for side in (ours, theirs):
        text = actor.processor.tokenizer.decode(side.prompt_ids)
        # means of the frames' times: (0, 42), (85, 127) of 25 per second; (0, 333), (666, 999)
        assert [text.count(f"<{time} seconds>") for time in ("0.8", "4.2", "6.7", "33.3")] == [1, 1, 1, 1]


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_frames_of_unknown_rate_are_two_per_second_on_both_sides(sides, kind):
    from verl_twgrpo.compat.bare_frames import rated

    bare = synthetic(5.12, 16)[0]
    ours, theirs, processor = see(sides(kind), user("<video>", "what?"), [rated(bare)])
    if kind == "qwen2_5_vl":
        assert ours.time_of_videos(processor.video_token_id) == [[0, 2, 4, 6, 8, 10, 12, 14]]
        # vLLM alone, without verl's agent loop in front
        alone = sides(kind)[1].see(ours.prompt_ids, [bare])
        assert torch.equal(alone.positions, ours.positions)


def test_bfloat16_does_not_round_the_seconds(sides):
    actor, rollout = sides("qwen2_5_vl")
    assert rollout.dtype == torch.bfloat16, "the type that vLLM chooses"
    video = synthetic(333.0, 64)  # in bfloat16 the last grids would be off by one and two
    ours, theirs, processor = see((actor, rollout), user("<video>", "what?"), [video])
    assert wrong_time(ours, processor, [video]) == []
