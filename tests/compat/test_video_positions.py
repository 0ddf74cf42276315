"""The actor counts the positions of a video's tokens as vLLM does for the rollout."""

from types import SimpleNamespace

import pytest
import torch
import verl  # noqa: F401 - loads the plugin
from ray import cloudpickle
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

from verl_twgrpo.compat.video_positions import UNTOLD_RATE, video_positions
from verl_twgrpo.mini_clevrer.model.checkpoint import build_processor

vllm_model = pytest.importorskip("vllm.model_executor.models.qwen2_5_vl", reason="compares with vLLM's positions")

VIDEO, IMAGE = "<|video_pad|>", "<|image_pad|>"


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def prompt(processor, *pieces, dtype=torch.float32):
    """Token ids and vLLM's features of a prompt: strings are text, (token, t, h, w) a picture of merged patches."""
    ids, features = [], []
    token = processor.tokenizer.convert_tokens_to_ids
    for piece in pieces:
        if isinstance(piece, str):
            ids += processor.tokenizer(piece)["input_ids"]
            continue
        kind, t, h, w = piece
        ids.append(token("<|vision_start|>"))
        name = "video" if kind == VIDEO else "image"
        data = {f"{name}_grid_thw": SimpleNamespace(data=torch.tensor([t, 2 * h, 2 * w]))}
        if name == "video":
            seconds = torch.tensor(processor.video_processor.temporal_patch_size / UNTOLD_RATE, dtype=dtype)
            data["second_per_grid_ts"] = SimpleNamespace(data=seconds)
        features.append(SimpleNamespace(modality=name, data=data, mm_position=SimpleNamespace(offset=len(ids))))
        ids += [token(kind)] * (t * h * w) + [token("<|vision_end|>")]
    return torch.tensor(ids), features


def as_vllm_counts(ids, features, tokens_per_second):
    model = vllm_model.Qwen2_5_VLForConditionalGeneration
    vision = SimpleNamespace(spatial_merge_size=2, tokens_per_second=tokens_per_second)
    stand_in = SimpleNamespace(config=SimpleNamespace(vision_config=vision))
    stand_in.iter_mm_grid_thw = lambda features: model.iter_mm_grid_thw(stand_in, features)
    return model.get_mrope_input_positions(stand_in, ids.tolist(), features)[0]


def grids(features, name):
    found = [feature.data[f"{name}_grid_thw"].data for feature in features if feature.modality == name]
    return torch.stack(found) if found else None


PROMPTS = {
    "one short video": ["see ", (VIDEO, 4, 2, 2), " what?"],
    "frames in time beyond their height and width": [(VIDEO, 64, 2, 3), " what?"],
    "frames wider than their time": ["a ", (VIDEO, 2, 3, 9), " b"],
    "two videos and an image": ["a", (VIDEO, 8, 2, 2), "b", (IMAGE, 1, 4, 4), "c", (VIDEO, 30, 2, 2), "d"],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens_per_second", [0, 1, 2, 4, 12, 25])
@pytest.mark.parametrize("pieces", PROMPTS.values(), ids=PROMPTS)
def test_positions_are_vllms(processor, pieces, tokens_per_second, dtype):
    ids, features = prompt(processor, *pieces, dtype=dtype)
    expected = as_vllm_counts(ids, features, tokens_per_second)
    pictures = grids(features, "video"), grids(features, "image")
    found = video_positions(processor, tokens_per_second, ids, torch.ones_like(ids), *pictures, dtype)
    assert torch.equal(found, expected)


def worker(processor, tokens_per_second, kind=AgentLoopWorker):
    """As much of verl's worker as counts positions."""
    made = object.__new__(kind)
    vision = SimpleNamespace(tokens_per_second=tokens_per_second)
    processor.config = SimpleNamespace(vision_config=vision)
    made.processor = processor
    made.rollout_config = SimpleNamespace(dtype="float32")
    return made


def as_ray_sends_it():
    """The V1 trainer's worker class as it arrives in its actor's process."""
    return cloudpickle.loads(cloudpickle.dumps(AgentLoopWorkerTQ.__ray_metadata__.modified_class))


@pytest.mark.parametrize("kind", [AgentLoopWorker, as_ray_sends_it()], ids=["class", "actor"])
def test_verls_worker_counts_them_for_padded_rows(processor, kind):
    ids, features = prompt(processor, "see ", (VIDEO, 6, 2, 2), " what?")
    left, right = 3, 2
    padded = torch.nn.functional.pad(ids, (left, right), value=processor.tokenizer.pad_token_id)[None]
    mask = torch.nn.functional.pad(torch.ones_like(ids), (left, right))[None]
    inputs = {"video_grid_thw": grids(features, "video"), "mm_token_type_ids": torch.zeros_like(padded)}
    found = worker(processor, 2, kind)._compute_position_ids(padded, mask, inputs)
    assert found.shape == (1, 4, padded.shape[1]) and found.dtype == torch.int64
    live = slice(left, -right)
    assert torch.equal(found[0, 1:, live], as_vllm_counts(ids, features, 2))
    assert found[0, 0, live].tolist() == list(range(len(ids)))
    # verl's contract: the model's forward does not see what only positions need
    assert "mm_token_type_ids" not in inputs


@pytest.mark.upstream_bug
def test_verl_counts_them_otherwise(processor, monkeypatch):
    from inspect import getclosurevars
    from types import MethodType

    from transformers import Qwen2_5_VLModel

    # as verl's hf_processor has it
    for name in ("get_rope_index", "get_vision_position_ids"):
        monkeypatch.setattr(processor, name, MethodType(getattr(Qwen2_5_VLModel, name), processor), raising=False)
    ids, features = prompt(processor, "see ", (VIDEO, 6, 2, 2), " what?")
    alone = worker(processor, 2)
    processor.config.vision_config.spatial_merge_size = 2
    inputs = {"video_grid_thw": grids(features, "video"), "mm_token_type_ids": torch.zeros_like(ids)[None]}
    stock = getclosurevars(AgentLoopWorker._compute_position_ids).nonlocals["stock"]
    found = stock(alone, ids[None], torch.ones_like(ids)[None], inputs)
    assert not torch.equal(found[0, 1:], as_vllm_counts(ids, features, 2))


def test_rows_without_a_video_and_other_models_are_left_to_verl(processor):
    ids = torch.arange(20, 25)[None]
    calls = []
    processor.get_rope_index = lambda **kwargs: calls.append(kwargs) or (torch.zeros(3, 1, 5, dtype=torch.int64), None)
    try:
        worker(processor, 2)._compute_position_ids(ids, torch.ones_like(ids), {})
    finally:
        del processor.get_rope_index
    assert len(calls) == 1
