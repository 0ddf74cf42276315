"""Altered views of a video, against what the processor makes of frames that were altered before it."""

from __future__ import annotations

import pytest
import torch
import verl  # noqa: F401 - the plugin: it makes torchvision importable
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from verl_twgrpo.training.views import VIEWS, View, altered_inputs, altered_pixels, colours_of, row_seed

PROCESSORS = {"Qwen2-VL and Qwen2.5-VL": Qwen2VLVideoProcessor, "Qwen3-VL": Qwen3VLVideoProcessor}


@pytest.fixture(params=PROCESSORS.values(), ids=PROCESSORS, scope="module")
def processor(request):
    if request.param is Qwen3VLVideoProcessor:
        return request.param(patch_size=16)
    return request.param(patch_size=14)


def a_video(processor, frames=8, height=2, width=3, seed=0):
    """Random frames [frames, 3, H, W] in 0..255, ``height`` x ``width`` tokens large."""
    side = processor.patch_size * processor.merge_size
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, 3, height * side, width * side), generator=generator).float()


def process(processor, *videos):
    made = processor(videos=list(videos), do_resize=False, do_sample_frames=False, return_tensors="pt")
    return made["pixel_values_videos"], made["video_grid_thw"]


def view_of(processor, frames, name, seed=3, **settings):
    return altered_pixels(*process(processor, frames), View(name, **settings), colours_of(processor), seed)


def in_pairs(frames, order):
    """Frames with their pairs (temporal patches) in another order."""
    return frames.unflatten(0, (-1, 2))[order].flatten(0, 1)


def test_blank_is_what_the_processor_makes_of_grey_frames(processor):
    frames = a_video(processor)
    grey, _ = process(processor, torch.full_like(frames, 128))
    assert torch.equal(view_of(processor, frames, "blank"), grey)


def test_frozen_is_what_the_processor_makes_of_a_repeated_first_pair(processor):
    frames = a_video(processor)
    expected, _ = process(processor, in_pairs(frames, [0, 0, 0, 0]))
    assert torch.equal(view_of(processor, frames, "frozen"), expected)


def test_sparse_is_what_the_processor_makes_of_held_pairs(processor):
    frames = a_video(processor, frames=10)
    expected, _ = process(processor, in_pairs(frames, [0, 0, 2, 2, 4]))
    assert torch.equal(view_of(processor, frames, "sparse", stride=2), expected)


def test_shuffled_is_what_the_processor_makes_of_permuted_pairs(processor):
    frames = a_video(processor)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(3))
    assert order.tolist() != [0, 1, 2, 3]
    expected, _ = process(processor, in_pairs(frames, order))
    assert torch.equal(view_of(processor, frames, "shuffled"), expected)


def test_patches_is_what_the_processor_makes_of_frames_with_black_squares(processor):
    frames = a_video(processor)
    found = view_of(processor, frames, "patches", share=0.5)
    black_TS = (found == colours_of(processor).black_P).all(dim=1).view(4, -1)
    assert 0.3 < black_TS.float().mean() < 0.7
    assert len({tuple(row) for row in black_TS.tolist()}) == 4  # drawn anew for every temporal patch
    # rows of a temporal patch go by tokens (2 x 3), and inside a token by its patches (merge x merge)
    merge, size = processor.merge_size, processor.patch_size
    squares = black_TS.view(4, 2, 3, merge, merge).permute(0, 1, 3, 2, 4).reshape(4, 2 * merge, 3 * merge)
    for pair, squares_of_pair in zip(frames.unflatten(0, (-1, 2)), squares, strict=True):
        for y, x in squares_of_pair.nonzero().tolist():
            pair[:, :, y * size : (y + 1) * size, x * size : (x + 1) * size] = 0
    assert torch.equal(found, process(processor, frames)[0])


def test_videos_of_a_row_are_altered_one_by_one(processor):
    first, second = a_video(processor, frames=4), a_video(processor, frames=6, height=1, width=2, seed=1)
    pixels, grids = process(processor, first, second)
    for name in ("frozen", "blank"):
        alone = [view_of(processor, frames, name) for frames in (first, second)]
        assert torch.equal(altered_pixels(pixels, grids, View(name), colours_of(processor), 0), torch.cat(alone))


def test_rows_without_a_video_are_left_alone(processor):
    for row in ({}, {"pixel_values": torch.ones(4, 7), "image_grid_thw": torch.tensor([[1, 2, 2]])}):
        assert altered_inputs(row, View("blank"), colours_of(processor), 0) is row


def test_only_the_videos_pixels_change_and_the_row_itself_does_not(processor):
    pixels, grids = process(processor, a_video(processor))
    image = torch.ones(4, 7)
    row = {"pixel_values_videos": pixels, "video_grid_thw": grids, "pixel_values": image}
    before = pixels.clone()
    found = altered_inputs(row, View("blank"), colours_of(processor), 0)
    assert found["pixel_values"] is image and found["video_grid_thw"] is grids
    assert not torch.equal(found["pixel_values_videos"], pixels)
    assert torch.equal(row["pixel_values_videos"], pixels) and torch.equal(pixels, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_views_keep_shape_and_dtype_and_are_drawn_from_the_seed(processor, dtype):
    pixels, grids = process(processor, a_video(processor))
    pixels = pixels.to(dtype)
    colours = colours_of(processor)
    for name in VIEWS:
        one, again, other = (altered_pixels(pixels, grids, View(name), colours, seed) for seed in (1, 1, 2))
        assert one.shape == pixels.shape and one.dtype == dtype
        assert torch.equal(one, again)
        assert torch.equal(one, other) == (name not in ("patches", "shuffled"))
        assert torch.equal(one, pixels) == (name == "unchanged")


@settings(max_examples=50)
@given(frames=st.integers(1, 6), seed=st.integers(0, 2**62))
def test_a_shuffled_video_has_all_its_temporal_patches_in_another_order(frames, seed):
    pixels, grids = torch.arange(frames * 4.0)[:, None], torch.tensor([[frames, 2, 2]])
    found = altered_pixels(pixels, grids, View("shuffled"), None, seed)
    assert sorted(found.flatten().tolist()) == pixels.flatten().tolist()
    assert torch.equal(found, pixels) == (frames == 1)
    assert (found.view(frames, 4).diff(dim=1) == 1).all()


def test_seeds_belong_to_a_group_or_a_response():
    assert row_seed(0, "a") == row_seed(0, "a")
    assert len({row_seed(0, "a"), row_seed(1, "a"), row_seed(0, "b"), row_seed(0, "a", 0), row_seed(0, "a", 1)}) == 5


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="'grey': choose one of unchanged, blank"):
        View("grey")
    with pytest.raises(ValueError, match="share=1.5"):
        View("patches", share=1.5)
    with pytest.raises(ValueError, match="stride=0"):
        View("sparse", stride=0)
    with pytest.raises(ValueError, match="8] patches, but pixel_values_videos has 9"):
        altered_pixels(torch.ones(9, 3), torch.tensor([[2, 2, 2]]), View("frozen"), None, 0)
