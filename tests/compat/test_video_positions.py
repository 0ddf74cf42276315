"""The actor counts the positions of a video's tokens as vLLM does, from what vLLM's processor really hands over."""

from types import SimpleNamespace

import pytest
import torch
import verl  # noqa: F401 - loads the plugin
from ray import cloudpickle
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

from verl_twgrpo.compat.video_positions import video_positions
from verl_twgrpo.mini_clevrer.model.checkpoint import build_processor

# vLLM is imported for them
pytestmark = pytest.mark.slow

qwen2_vl = pytest.importorskip("vllm.model_executor.models.qwen2_vl", reason="compares with vLLM's positions")
qwen2_5_vl = pytest.importorskip("vllm.model_executor.models.qwen2_5_vl")

VIDEO, IMAGE = "<|video_pad|>", "<|image_pad|>"


class Qwen2VLProcessor(type(build_processor())):
    """The same tokens under Qwen2-VL's name, by which verl knows a model."""


@pytest.fixture(scope="module")
def qwen2_5():
    return build_processor()


@pytest.fixture(scope="module")
def qwen2(qwen2_5):
    made = object.__new__(Qwen2VLProcessor)
    made.__dict__.update(qwen2_5.__dict__)
    return made


def prompt(processor, *pieces):
    """Token ids, vLLM's features and the seconds of a grid: strings are text, (token, t, h, w, seconds) a picture."""
    ids, features = [], []
    token = processor.tokenizer.convert_tokens_to_ids
    for piece in pieces:
        if isinstance(piece, str):
            ids += processor.tokenizer(piece)["input_ids"]
            continue
        kind, t, h, w, *seconds = piece
        ids.append(token("<|vision_start|>"))
        name = "video" if kind == VIDEO else "image"
        data = {f"{name}_grid_thw": SimpleNamespace(data=torch.tensor([t, 2 * h, 2 * w]))}
        if seconds:
            data["second_per_grid_ts"] = SimpleNamespace(data=torch.tensor(seconds[0]))
        features.append(SimpleNamespace(modality=name, data=data, mm_position=SimpleNamespace(offset=len(ids))))
        ids += [token(kind)] * (t * h * w) + [token("<|vision_end|>")]
    return torch.tensor(ids), features


def as_vllm_counts(model, ids, features, **vision):
    config = SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2, **vision))
    stand_in = SimpleNamespace(config=config)
    stand_in.iter_mm_grid_thw = lambda features: model.iter_mm_grid_thw(stand_in, features)
    return model.get_mrope_input_positions(stand_in, ids.tolist(), features)[0]


def grids(features, name):
    found = [feature.data[f"{name}_grid_thw"].data for feature in features if feature.modality == name]
    return torch.stack(found) if found else None


def seconds(features):
    told = [feature.data["second_per_grid_ts"].data for feature in features if "second_per_grid_ts" in feature.data]
    return torch.stack(told) if told else None


PROMPTS = {
    "one short video": ["see ", (VIDEO, 4, 2, 2, 0.64), " what?"],
    "many grids at once": [(VIDEO, 64, 2, 3, 1 / 12), " what?"],
    "a long video": [(VIDEO, 16, 2, 2, 5.0), " what?"],
    "frames wider than their time": ["a ", (VIDEO, 2, 3, 9, 0.5), " b"],
    "two videos in a row": [(VIDEO, 8, 2, 2, 0.64), (VIDEO, 8, 2, 2, 5.0), "which?"],
    "a video beside an image": ["a", (VIDEO, 8, 2, 2, 1.1), "b", (IMAGE, 1, 4, 4), "c", (VIDEO, 30, 2, 2, 0.3), "d"],
}


@pytest.mark.parametrize("tokens_per_second", [0, 1, 2, 4, 12, 25])
@pytest.mark.parametrize("pieces", PROMPTS.values(), ids=PROMPTS)
def test_qwen2_5_vls_positions_are_vllms(qwen2_5, pieces, tokens_per_second):
    ids, features = prompt(qwen2_5, *pieces)
    vision = {"tokens_per_second": tokens_per_second}
    qwen2_5.config = SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2, **vision))
    found = video_positions(
        qwen2_5, ids, torch.ones_like(ids), grids(features, "video"), grids(features, "image"), seconds(features)
    )
    assert torch.equal(found, as_vllm_counts(qwen2_5_vl.Qwen2_5_VLForConditionalGeneration, ids, features, **vision))


@pytest.mark.parametrize("pieces", PROMPTS.values(), ids=PROMPTS)
def test_qwen2_vls_positions_are_vllms(qwen2, pieces):
    ids, features = prompt(qwen2, *[piece[:4] if isinstance(piece, tuple) else piece for piece in pieces])
    qwen2.config = SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2))
    found = video_positions(qwen2, ids, torch.ones_like(ids), grids(features, "video"), grids(features, "image"))
    assert torch.equal(found, as_vllm_counts(qwen2_vl.Qwen2VLForConditionalGeneration, ids, features))


def worker(processor, kind=AgentLoopWorker, **vision):
    """As much of verl's worker as counts positions."""
    made = object.__new__(kind)
    processor.config = SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2, **vision))
    made.processor = processor
    return made


def as_ray_sends_it():
    """The V1 trainer's worker class as it arrives in its actor's process."""
    return cloudpickle.loads(cloudpickle.dumps(AgentLoopWorkerTQ.__ray_metadata__.modified_class))


@pytest.mark.parametrize("kind", [AgentLoopWorker, as_ray_sends_it()], ids=["class", "actor"])
def test_verls_worker_counts_them_for_padded_rows(qwen2_5, kind):
    ids, features = prompt(qwen2_5, "see ", (VIDEO, 6, 2, 2, 0.64), " what?")
    left, right = 3, 2
    padded = torch.nn.functional.pad(ids, (left, right), value=qwen2_5.tokenizer.pad_token_id)[None]
    mask = torch.nn.functional.pad(torch.ones_like(ids), (left, right))[None]
    inputs = {
        "video_grid_thw": grids(features, "video"),
        "second_per_grid_ts": seconds(features),
        "mm_token_type_ids": torch.zeros_like(padded),
    }
    found = worker(qwen2_5, kind, tokens_per_second=2)._compute_position_ids(padded, mask, inputs)
    assert found.shape == (1, 4, padded.shape[1]) and found.dtype == torch.int64
    live = slice(left, -right)
    model = qwen2_5_vl.Qwen2_5_VLForConditionalGeneration
    assert torch.equal(found[0, 1:, live], as_vllm_counts(model, ids, features, tokens_per_second=2))
    assert found[0, 0, live].tolist() == list(range(len(ids)))
    # verl's contract: the model's forward does not see what only positions need
    assert "mm_token_type_ids" not in inputs


def test_verls_worker_counts_an_image_beside_a_video_and_its_text(qwen2_5):
    pieces = PROMPTS["a video beside an image"]
    ids, features = prompt(qwen2_5, *pieces)
    left, right = 4, 3
    padded = torch.nn.functional.pad(ids, (left, right), value=qwen2_5.tokenizer.pad_token_id)[None]
    mask = torch.nn.functional.pad(torch.ones_like(ids), (left, right))[None]
    inputs = {
        "video_grid_thw": grids(features, "video"),
        "image_grid_thw": grids(features, "image"),
        "second_per_grid_ts": seconds(features),
    }
    found = worker(qwen2_5, tokens_per_second=2)._compute_position_ids(padded, mask, inputs)[0]
    live = slice(left, -right)
    model = qwen2_5_vl.Qwen2_5_VLForConditionalGeneration
    assert torch.equal(found[1:, live], as_vllm_counts(model, ids, features, tokens_per_second=2))
    # verl places the text of a row from its first live token on, and padding at 1, as it does for other models
    assert found[0].tolist() == [1] * left + list(range(len(ids))) + [1] * right
    assert bool((found[1:, :left] == 1).all()) and bool((found[1:, -right:] == 1).all())


def test_a_video_whose_time_is_not_known_is_no_video_at_24_frames_per_second(qwen2_5):
    ids, features = prompt(qwen2_5, (VIDEO, 6, 2, 2), " what?")
    inputs = {"video_grid_thw": grids(features, "video")}
    with pytest.raises(ValueError, match="second_per_grid_ts"):
        worker(qwen2_5, tokens_per_second=2)._compute_position_ids(ids[None], torch.ones_like(ids)[None], inputs)


@pytest.mark.upstream_bug
@pytest.mark.parametrize(("name", "frames"), [("qwen2", 32), ("qwen2_5", 16)])
def test_transformers_counts_otherwise_without_the_plugin(name, frames, request):
    """The bug: text behind a video that is longer than it is wide begins too early. If this fails, transformers counts
    as vLLM does, and compat/video_positions.py can go."""
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel

    processor = request.getfixturevalue(name)
    stock = {"qwen2": Qwen2VLModel, "qwen2_5": Qwen2_5_VLModel}[name]
    vision = {} if name == "qwen2" else {"tokens_per_second": 2}
    times = () if name == "qwen2" else (0.64,)
    ids, features = prompt(processor, (VIDEO, frames // 2, 2, 2, *times), " what?")
    config = SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2, **vision))
    stand_in = SimpleNamespace(config=config)
    stand_in.get_vision_position_ids = lambda *a, **k: stock.get_vision_position_ids(stand_in, *a, **k)
    kinds = 2 * (ids == processor.video_token_id).int()
    given = {"second_per_grid_ts": seconds(features)} if times else {}
    theirs, _ = stock.get_rope_index(
        stand_in, ids[None], mm_token_type_ids=kinds[None], video_grid_thw=grids(features, "video"), **given
    )
    model = (
        qwen2_vl.Qwen2VLForConditionalGeneration if name == "qwen2" else qwen2_5_vl.Qwen2_5_VLForConditionalGeneration
    )
    assert not torch.equal(theirs[:, 0], as_vllm_counts(model, ids, features, **vision))


def test_rows_without_a_video_and_other_models_are_left_to_verl(qwen2_5):
    ids = torch.arange(20, 25)[None]
    calls = []
    qwen2_5.get_rope_index = lambda **kwargs: calls.append(kwargs) or (torch.zeros(3, 1, 5, dtype=torch.int64), None)
    try:
        worker(qwen2_5, tokens_per_second=2)._compute_position_ids(ids, torch.ones_like(ids), {})
    finally:
        del qwen2_5.get_rope_index
    assert len(calls) == 1
