"""What prompts cost in tokens."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from verl_twgrpo.data.parquet import TOKEN_PIXELS, FrameLimits, read_rows, write_rows
from verl_twgrpo.planning.prompts import PromptCost, check_budget, most_video_tokens, prompt_cost, video_tokens
from verl_twgrpo.planning.resources import pixel_bytes
from verl_twgrpo.video.decode import frame_size

PAPER = FrameLimits()


@pytest.mark.parametrize(("limits", "tokens"), [(PAPER, 936), (FrameLimits(max_pixels=256 * TOKEN_PIXELS), 1496)])
def test_a_clevrer_video_in_training_and_in_evaluation(limits, tokens):
    # 480 x 320 pixels become 364 x 252 in training, 476 x 308 in evaluation
    video = {"nframes": limits.nframes, "min_pixels": limits.min_pixels, "max_pixels": limits.max_pixels}
    assert video_tokens(16, *frame_size(320, 480, video)) == tokens


def test_no_video_has_more_tokens_than_its_limits_allow():
    assert most_video_tokens(PAPER) == 1024
    video = {"nframes": 16, "min_pixels": PAPER.min_pixels, "max_pixels": PAPER.max_pixels}
    for height, width in ((320, 480), (1080, 1920), (100, 90), (720, 300)):
        assert video_tokens(16, *frame_size(height, width, video)) <= 1024


def test_the_arithmetic_is_the_processors(checkpoint):
    from transformers import Qwen2VLVideoProcessor

    size = {"shortest_edge": 4 * TOKEN_PIXELS, "longest_edge": 2**24}
    process = Qwen2VLVideoProcessor(size=size, patch_size=14, temporal_patch_size=2, merge_size=2)
    made = process([torch.zeros(8, 3, 56, 84)], return_tensors="pt", do_sample_frames=False)
    tokens = video_tokens(8, 56, 84)
    assert int(made["video_grid_thw"].prod()) == tokens * 4
    values = made["pixel_values_videos"]
    assert pixel_bytes(1, tokens, 14) == values.numel() * values.element_size()


def test_videos_are_measured_and_prompts_counted_with_the_processor(data_file, checkpoint):
    from transformers import AutoProcessor

    cost = prompt_cost([str(data_file)], PAPER, 14, checkpoint)
    assert (cost.rows, cost.video, cost.measured) == (5, (24, 24), True)
    processor = AutoProcessor.from_pretrained(checkpoint)
    texts = [row["prompt"][0]["content"].removeprefix("<video>") for row in read_rows(data_file)]
    chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": max(texts, key=len)}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    blank = torch.zeros(8, 3, 56, 84)
    metadata = {"fps": 1.0, "frames_indices": list(range(8)), "total_num_frames": 8}
    inputs = processor(text=[text], videos=[blank], video_metadata=[metadata], do_sample_frames=False)
    assert cost.longest == len(inputs["input_ids"][0])


def test_without_a_processor_the_text_is_not_counted(data_file, tmp_path):
    for folder in (None, tmp_path):
        cost = prompt_cost([str(data_file)], PAPER, 14, folder)
        assert (cost.video, cost.longest) == ((24, 24), None)


def test_a_file_that_is_not_there_costs_what_the_limits_allow(tmp_path):
    cost = prompt_cost([str(tmp_path / "no.parquet")], PAPER, 14, None)
    assert cost == PromptCost(None, (1024, 1024), False, None)


def test_a_video_that_is_not_there_costs_what_the_limits_of_its_row_allow(data_file, tmp_path):
    rows = read_rows(data_file)
    rows[1]["videos"][0]["video"] = "/no/such.mp4"
    file = write_rows(rows, tmp_path / "data.parquet")
    cost = prompt_cost([str(file)], PAPER, 14, None)
    assert (cost.video, cost.measured) == ((24, 64), False)


def test_a_broken_video_is_named(data_file, tmp_path):
    rows = read_rows(data_file)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    rows[1]["videos"][0]["video"] = str(broken)
    file = write_rows(rows, tmp_path / "data.parquet")
    with pytest.raises(ValueError, match=r"broken\.mp4: broken video"):
        prompt_cost([str(file)], PAPER, 14, None)


def test_a_budget_has_to_hold_the_longest_prompt():
    counted = PromptCost(5, (24, 24), True, 60)
    check_budget("data.train_files", counted, 60)
    with pytest.raises(ValueError, match=r"data\.max_prompt_length=59: too small for data\.train_files: .* 60 tokens"):
        check_budget("data.train_files", counted, 59)


def test_a_budget_has_to_hold_more_than_the_video():
    uncounted = PromptCost(5, (24, 30), True, None)
    check_budget("data.val_files", uncounted, 31)
    with pytest.raises(ValueError, match=r"data\.max_prompt_length=30: .* a video alone has 30 tokens"):
        check_budget("data.val_files", uncounted, 30)
    with pytest.raises(ValueError, match=r"at the paper's frames and pixels a video alone has 1024 tokens"):
        check_budget("data.val_files", PromptCost(None, (1024, 1024), False, None), 512)


def test_rows_without_a_video_cost_their_text(data_file, checkpoint, tmp_path):
    """Beside rows with one, the longest prompt may be text alone; with none, no video's column is asked for."""
    from transformers import AutoTokenizer

    rows = read_rows(data_file)
    told = "What?" * 40
    rows[1] = {**rows[1], "videos": [], "prompt": [{"role": "user", "content": told}]}
    mixed = prompt_cost([str(write_rows(rows, tmp_path / "mixed.parquet"))], PAPER, 14, checkpoint)
    assert (mixed.rows, mixed.video, mixed.measured) == (5, (24, 24), True)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    text = tokenizer.apply_chat_template(rows[1]["prompt"], add_generation_prompt=True, tokenize=False)
    assert mixed.longest == len(tokenizer(text, add_special_tokens=False)["input_ids"])

    bare = [{"data_source": "own", "prompt": row["prompt"]} for row in rows]
    pq.write_table(pa.Table.from_pylist(bare), tmp_path / "text.parquet")
    assert prompt_cost([str(tmp_path / "text.parquet")], PAPER, 14, None) == PromptCost(5, (0, 0), True, None)


@pytest.mark.parametrize("limits", [{"min_pixels": 4 * TOKEN_PIXELS, "max_pixels": 20 * TOKEN_PIXELS}, {}])
def test_images_cost_what_the_processor_makes_of_them(data_file, checkpoint, tmp_path, limits):
    from qwen_vl_utils import fetch_image
    from transformers import AutoProcessor

    Image.new("RGB", (300, 200)).save(tmp_path / "wide.png")
    image = {"image": str(tmp_path / "wide.png"), **limits}
    rows = read_rows(data_file)
    for row in rows:
        row["prompt"][0]["content"] = row["prompt"][0]["content"].replace("<video>", "<image>")
        row.update(videos=[], images=[image])
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "images.parquet")
    cost = prompt_cost([str(tmp_path / "images.parquet")], PAPER, 14, checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    texts = [row["prompt"][0]["content"].removeprefix("<image>") for row in rows]
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": max(texts, key=len)}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    width, height = fetch_image(image).size
    tokens = width * height // TOKEN_PIXELS
    inputs = processor(text=[text], images=[fetch_image(image)], return_tensors="pt")
    assert (cost.rows, cost.video, cost.image, cost.measured) == (5, (0, 0), (tokens, tokens), True)
    assert cost.longest == len(inputs["input_ids"][0])
    assert cost.visual == tokens


def test_an_image_that_is_not_there_costs_what_its_limits_allow(tmp_path):
    gone = {"image": "/no/such.png", "min_pixels": 1, "max_pixels": 20 * TOKEN_PIXELS}
    row = {"data_source": "own", "prompt": [{"role": "user", "content": "<image>What?"}], "images": [gone]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "images.parquet")
    cost = prompt_cost([str(tmp_path / "images.parquet")], PAPER, 14, None)
    assert cost == PromptCost(1, (0, 0), False, None, image=(20, 20))
    with pytest.raises(ValueError, match=r"data\.max_prompt_length=20: .* an image alone has 20 tokens"):
        check_budget("data.train_files", cost, 20)


@pytest.mark.parametrize("form", [lambda path: path, lambda path: {"bytes": b"a picture"}])
def test_an_image_that_is_no_path_is_not_measured(checkpoint, tmp_path, form):
    row = {"data_source": "own", "prompt": [{"role": "user", "content": "<image>What?"}], "images": [form("image.png")]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "images.parquet")
    cost = prompt_cost([str(tmp_path / "images.parquet")], PAPER, 14, checkpoint)
    assert (cost.measured, cost.longest) == (False, None)


def test_several_images_of_a_row_are_added_up_and_their_prompt_is_not_counted(checkpoint, tmp_path):
    Image.new("RGB", (56, 56)).save(tmp_path / "small.png")
    image = {"image": str(tmp_path / "small.png"), "min_pixels": 4 * TOKEN_PIXELS, "max_pixels": 4 * TOKEN_PIXELS}
    prompt = [{"role": "user", "content": "<image><image>Which?"}]
    row = {"data_source": "own", "prompt": prompt, "images": [image, image]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "images.parquet")
    cost = prompt_cost([str(tmp_path / "images.parquet")], PAPER, 14, checkpoint)
    assert cost == PromptCost(1, (0, 0), True, None, image=(4, 4), several=8)
    with pytest.raises(ValueError, match=r"what a row shows alone has 8 tokens"):
        check_budget("data.train_files", cost, 8)
