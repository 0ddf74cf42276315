"""The checkpoint folder: loads offline, and sees a video as verl's and vLLM's ways of preparing it show it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from verl_twgrpo.mini_clevrer.model.checkpoint import build_model, build_processor, write_checkpoint
from verl_twgrpo.mini_clevrer.model.warm_start import model_inputs, prompt_text
from verl_twgrpo.mini_clevrer.world import generate
from verl_twgrpo.mini_clevrer.world.render import FRAMES, FRAMES_PER_SECOND, SIZE
from verl_twgrpo.video.decode import read_frames

TEXT = "Without the red circle, what will happen?\nA The blue square collides with the green circle"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    processor = build_processor()
    model = build_model(processor, seed=0)
    return model, processor, write_checkpoint(model, processor, tmp_path_factory.mktemp("demo") / "model")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("videos"), "train", 1, seed=0)[0].video


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def refuse(*args, **kwargs):
        raise AssertionError("the checkpoint reached for the network")

    monkeypatch.setattr("socket.socket.connect", refuse)


def test_every_auto_class_loads_the_folder_offline(checkpoint, offline):
    model, processor, folder = checkpoint
    assert AutoConfig.from_pretrained(folder).model_type == "qwen2_5_vl"
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == processor.tokenizer.get_vocab()
    loaded = AutoProcessor.from_pretrained(folder)
    assert type(loaded).__name__ == "Qwen2_5_VLProcessor"
    assert loaded.chat_template == processor.chat_template
    again = AutoModelForImageTextToText.from_pretrained(folder)
    assert next(again.parameters()).dtype == torch.float32
    for (name, ours), theirs in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert again.generation_config.eos_token_id == processor.tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_the_model_is_tiny_and_within_what_vllm_on_cpu_runs(checkpoint):
    model, _, folder = checkpoint
    assert model.num_parameters() < 1e6
    config = AutoConfig.from_pretrained(folder)
    text, vision = config.text_config, config.vision_config
    head = text.hidden_size // text.num_attention_heads
    assert head == vision.hidden_size // vision.num_heads == 32
    assert sum(text.rope_parameters["mrope_section"]) == head // 2
    assert set(vision.fullatt_block_indexes) == set(range(vision.depth))


def test_weights_depend_on_the_seed_alone(checkpoint):
    model, processor, _ = checkpoint
    torch.manual_seed(5)
    before = torch.get_rng_state()
    same, other = build_model(processor, seed=0), build_model(processor, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.lm_head.weight, same.lm_head.weight)
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)


def test_rewriting_a_checkpoint_leaves_one_whole_folder(checkpoint, tmp_path):
    model, processor, _ = checkpoint
    folder = tmp_path / "model"
    (folder / "old").mkdir(parents=True)
    write_checkpoint(model, processor, folder)
    assert not (folder / "old").exists() and (folder / "model.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_decoded_file_gives_the_inputs_of_the_warm_start(checkpoint, video, monkeypatch):
    """The way of verl: qwen-vl-utils with the keys of the parquet's videos column, then the processor."""
    _, processor, _ = checkpoint
    from qwen_vl_utils import vision_process

    monkeypatch.setitem(vision_process.VIDEO_READER_BACKENDS, "pyav", read_frames)
    monkeypatch.setattr(vision_process, "get_video_reader_backend", lambda: "pyav")
    ask = {"video": video, "nframes": FRAMES, "min_pixels": SIZE * SIZE, "max_pixels": SIZE * SIZE}
    frames, metadata = vision_process.fetch_video(ask, return_video_metadata=True)
    assert frames.shape == (FRAMES, 3, SIZE, SIZE)
    assert metadata["fps"] == FRAMES_PER_SECOND and list(metadata["frames_indices"]) == list(range(FRAMES))
    prompt = prompt_text(processor, TEXT)
    theirs = processor(
        text=[prompt], videos=[frames], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt"
    )
    ours = model_inputs(processor, [prompt], [frames.permute(0, 2, 3, 1).numpy().astype(np.uint8)])
    assert theirs["video_grid_thw"].tolist() == [[4, 4, 4]]
    assert (theirs["input_ids"] == processor.video_token_id).sum() == 16
    for name in ("input_ids", "pixel_values_videos", "video_grid_thw"):
        assert torch.equal(torch.as_tensor(theirs[name]), ours[name]), name


def test_each_pair_of_frames_has_its_own_time_and_text_goes_on_after_the_largest_position(checkpoint):
    _, processor, _ = checkpoint
    frames = np.zeros((FRAMES, SIZE, SIZE, 3), np.uint8)
    inputs = model_inputs(processor, [prompt_text(processor, TEXT)], [frames])
    seen = (inputs["input_ids"] == processor.video_token_id)[0]
    time, height, width = inputs["position_ids"][:, 0]
    start = int(time[seen][0])
    assert (time[seen] - start).tolist() == [t for t in range(4) for _ in range(4)]
    assert (height[seen] - start).tolist() == [0, 0, 1, 1] * 4 and (width[seen] - start).tolist() == [0, 1, 0, 1] * 4
    after = int(seen.nonzero().max()) + 1
    assert (inputs["position_ids"][:, 0, after] == start + 4).all()
