"""Log-probs under altered videos inside verl's FSDP2 engine, against verl's own pass over rows that really are so."""

from __future__ import annotations

import pytest
import torch
from verl.utils import tensordict_utils as tu
from verl.workers.engine.fsdp import FSDPEngineWithLMHead
from verl.workers.utils.padding import response_from_nested

from verl_twgrpo.mini_clevrer.model.checkpoint import build_model, build_processor, write_checkpoint
from verl_twgrpo.training.engines.fsdp import TWGRPOEngine
from verl_twgrpo.training.views import VIEW_KEY

pytestmark = pytest.mark.slow

FRAMES, SIDE, TOKENS = 8, 56, 16  # 4 temporal patches of 2 x 2 tokens


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture(scope="module")
def checkpoint(processor, tmp_path_factory):
    """The demo's model with random weights, large enough that pixels matter."""
    model = build_model(processor, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3) if parameter.dim() > 1 else None
    return write_checkpoint(model, processor, tmp_path_factory.mktemp("views") / "model")


def frames(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (FRAMES, 3, SIDE, SIDE), generator=generator).float()


def batch(processor, videos, groups, **settings):
    """Rows with one video each (None: a row of text), as a worker gets them."""
    token = processor.tokenizer.convert_tokens_to_ids
    start, video, end = map(token, ("<|vision_start|>", "<|video_pad|>", "<|vision_end|>"))
    generator = torch.Generator().manual_seed(7)
    rows = {name: [] for name in ("prompts", "responses", "input_ids", "response_mask", "positions", "pictures")}
    for number, film in enumerate(videos):
        question = torch.randint(20, 60, (5,), generator=generator).tolist()
        prompt = torch.tensor(([start] + [video] * TOKENS + [end] if film is not None else []) + question)
        response = torch.randint(20, 60, (6 + number,), generator=generator)
        whole = torch.cat([prompt, response])
        made = {}
        if film is not None:
            made = dict(
                processor.video_processor(
                    videos=[film], do_resize=False, do_sample_frames=False, return_tensors="pt"
                )
            )  # fmt: skip
        rows["prompts"].append(prompt)
        rows["responses"].append(response)
        rows["input_ids"].append(whole)
        rows["response_mask"].append(torch.ones_like(response))
        rows["positions"].append(torch.arange(len(whole)).expand(4, -1))
        rows["pictures"].append(made)
    offsets = torch.tensor([0] + [len(row) for row in rows["input_ids"]]).cumsum(0)
    data = {
        name: torch.nested.as_nested_tensor(rows[name], layout=torch.jagged)
        for name in ("prompts", "responses", "input_ids", "response_mask")
    }
    positions = torch.nested.nested_tensor_from_jagged(torch.cat(rows["positions"], dim=1), offsets, jagged_dim=2)
    data |= {"loss_mask": data["response_mask"], "position_ids": positions, "uid": groups}
    made = tu.get_tensordict(data | {"multi_modal_inputs": rows["pictures"]})
    settings = {"temperature": 1.0, "calculate_entropy": False, "compute_loss": False} | settings
    tu.assign_non_tensor(made, use_dynamic_bsz=False, use_remove_padding=False, micro_batch_size_per_gpu=1, **settings)
    return made


def log_probs(engine, data):
    with engine.eval_mode():
        output = engine.infer_batch(data)["model_output"]
    return torch.cat(response_from_nested(output["log_probs"], data["response_mask"]).unbind())


def viewed(name, **settings):
    return {VIEW_KEY: {"name": name, "seed": 3, "step": 1, **settings}}


@pytest.fixture(scope="module")
def engine(make_engine, checkpoint):
    return make_engine(TWGRPOEngine, head=checkpoint)


def test_the_unchanged_view_differs_nowhere(engine, processor):
    films = [frames(0), None, frames(1)]
    plain = log_probs(engine, batch(processor, films, ["a", "b", "c"]))
    assert torch.equal(log_probs(engine, batch(processor, films, ["a", "b", "c"], **viewed("unchanged"))), plain)


def test_blank_is_verls_own_pass_over_a_grey_video(make_engine, checkpoint, engine, processor):
    films, grey = [frames(0), frames(1)], torch.full((FRAMES, 3, SIDE, SIDE), 128.0)
    verls = make_engine(FSDPEngineWithLMHead, head=checkpoint)
    expected = log_probs(verls, batch(processor, [grey, grey], ["a", "b"]))
    plain = log_probs(engine, batch(processor, films, ["a", "b"]))
    found = log_probs(engine, batch(processor, films, ["a", "b"], **viewed("blank")))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert (found - plain).abs().mean() > 1e-3  # the model looks at its video


def test_frozen_is_verls_own_pass_over_repeated_frames(engine, processor):
    still = frames(0)[:2].repeat(FRAMES // 2, 1, 1, 1)
    expected = log_probs(engine, batch(processor, [still], ["a"]))
    found = log_probs(engine, batch(processor, [frames(0)], ["a"], **viewed("frozen")))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_rows_without_a_video_and_the_batch_itself_stay(engine, processor):
    data = batch(processor, [frames(0), None], ["a", "b"], **viewed("blank"))
    before = tu.get(data, "multi_modal_inputs")[0]["pixel_values_videos"].clone()
    found = log_probs(engine, data)
    assert torch.equal(tu.get(data, "multi_modal_inputs")[0]["pixel_values_videos"], before)
    plain = log_probs(engine, batch(processor, [frames(0), None], ["a", "b"]))
    assert torch.equal(found[6:], plain[6:]) and not torch.equal(found[:6], plain[:6])
