"""The extra pass over an altered video inside verl's engine, on rows that have videos."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import response_from_nested

from verl_twgrpo.training.engines.fsdp import TWGRPOEngine
from verl_twgrpo.training.engines.packed_groups_mixin import PACKED_KEY
from verl_twgrpo.training.views import VIEW_KEY, colours_of

GRID = torch.tensor([[3, 4, 4]])  # three temporal patches of 16 patches, four tokens each
FRAMES, PATCHES = 3, 48


@pytest.fixture(scope="module")
def video_processor():
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    return Qwen2VLVideoProcessor()


@pytest.fixture
def video_batch(ragged_batch):
    """Two prompts with a video each and two responses, one prompt without."""
    video = torch.tensor([92] + [91] * (PATCHES // 4) + [93])
    ragged_batch.prompts = [
        torch.cat([video, prompt]) if uid in ("a", "b") else prompt
        for uid, prompt in zip(ragged_batch.uids, ragged_batch.prompts, strict=True)
    ]
    return ragged_batch


def pixels_of(uid):
    return torch.randn(PATCHES, 1176, generator=torch.Generator().manual_seed(ord(uid[0])))


def log_probs(engine, batch, view=None, pixels=pixels_of, micro_batch_size=1, packed=False):
    settings = {} if view is None else {VIEW_KEY: {"seed": 3, "step": 1, **view}}
    settings |= {PACKED_KEY: "true"} if packed else {}
    data = batch.tensordict(
        temperature=1.0, calculate_entropy=False, compute_loss=False, use_dynamic_bsz=False, use_remove_padding=False,
        micro_batch_size_per_gpu=micro_batch_size, **settings,
    )  # fmt: skip
    rows = [
        {"pixel_values_videos": pixels(uid), "video_grid_thw": GRID} if uid in ("a", "b") else {} for uid in batch.uids
    ]
    column = tu.get_tensordict({"multi_modal_inputs": rows, "uid": list(batch.uids)})["multi_modal_inputs"]
    data["multi_modal_inputs"] = column
    with engine.eval_mode():
        found = engine.infer_batch(data)["model_output"]["log_probs"]
    return response_from_nested(found, data["response_mask"]).unbind()


@pytest.fixture
def engine(make_engine, video_processor):
    made = make_engine(TWGRPOEngine)
    object.__setattr__(made.model_config, "processor", SimpleNamespace(video_processor=video_processor))
    return made


@pytest.mark.slow
def test_views_change_what_they_should_and_nothing_else(engine, video_batch, video_processor):
    plain = log_probs(engine, video_batch)
    unchanged = log_probs(engine, video_batch, {"name": "unchanged"})
    blank = log_probs(engine, video_batch, {"name": "blank"})
    grey = colours_of(video_processor).grey_P.expand(PATCHES, -1)
    really_blank = log_probs(engine, video_batch, pixels=lambda uid: grey)
    shuffled = log_probs(engine, video_batch, {"name": "shuffled"})
    cut = log_probs(engine, video_batch, {"name": "shuffled"}, micro_batch_size=7)
    for row, uid in enumerate(video_batch.uids):
        assert torch.equal(unchanged[row], plain[row])
        torch.testing.assert_close(blank[row], really_blank[row], rtol=0, atol=1e-6)
        torch.testing.assert_close(cut[row], shuffled[row], rtol=1e-5, atol=1e-5)
        has_video = uid in ("a", "b")
        for altered in (blank, shuffled):
            assert ((altered[row] - plain[row]).abs().max() > 1e-3) == has_video


@pytest.mark.slow
@pytest.mark.parametrize("view", [None, "blank", "shuffled", "patches"])
def test_packed_groups_see_the_same_altered_video(engine, video_batch, view):
    view = view and {"name": view, **({"share": 0.5} if view == "patches" else {})}
    engine.take_packing_counts()
    unpacked = log_probs(engine, video_batch, view)
    packed = log_probs(engine, video_batch, view, micro_batch_size=len(video_batch.uids), packed=True)
    counts = engine.take_packing_counts()
    assert counts["tokens"] < counts["tokens_unpacked"]
    for one, other in zip(unpacked, packed, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)


def test_without_a_video_processor_the_pass_is_refused(make_engine, video_batch):
    made = make_engine(TWGRPOEngine)
    object.__setattr__(made.model_config, "processor", None)
    with pytest.raises(ValueError, match="view 'blank' needs a model with a video processor"):
        log_probs(made, video_batch, {"name": "blank"})
