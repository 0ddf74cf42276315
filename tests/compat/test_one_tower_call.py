"""Images, videos, both and neither on two ranks: no rank waits for another, and the gradients are right."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import torch

from verl_twgrpo.compat.one_tower_call import MODULES

SCRIPT = Path(__file__).with_name("kinds_on_two_ranks.py")
KINDS = ("image", "video", "both", "text")


@pytest.fixture
def run(on_two_ranks):
    return lambda checkpoint, plan, way: on_two_ranks(SCRIPT, way, str(checkpoint), json.dumps(plan))


def qwen2_vl(folder):
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    text = {
        "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]},
    }  # fmt: skip
    config = Qwen2VLConfig(
        text_config=text,
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 1, "mlp_ratio": 2},
        image_token_id=90, video_token_id=91, vision_start_token_id=92, vision_end_token_id=93,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("model", ["qwen2_5_vl", "qwen2_vl"])
def test_every_pair_of_kinds_trains_on_two_ranks(run, model, checkpoints, tmp_path):
    checkpoint = checkpoints["untied"] if model == "qwen2_5_vl" else qwen2_vl(tmp_path)
    for done in run(checkpoint, list(product(KINDS, KINDS)), "mended"):
        assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.upstream_bug
def test_without_the_mend_both_kinds_beside_one_fail(run, checkpoints):
    assert any(done.returncode for done in run(checkpoints["untied"], [["both", "image"]], "stock"))


@pytest.mark.parametrize("name", [name.rsplit(".", 1)[1] for name in MODULES])
def test_one_call_gives_the_features_of_two(name):
    """Whatever the tower gives back: tokens alone, or those of deepstack layers too."""
    from importlib import import_module
    from types import SimpleNamespace

    module = import_module(f"verl.models.transformers.{name}")
    calls = []

    class Tower:
        dtype, spatial_merge_size = torch.float32, 2

        def __call__(self, pixels, grid_thw):
            calls.append(len(pixels))
            tokens = pixels.reshape(-1, 4, pixels.shape[-1]).sum(1)
            return SimpleNamespace(pooler_output=tokens, deepstack_features=[2 * tokens, 3 * tokens])

    model = SimpleNamespace(
        visual=Tower(),
        config=SimpleNamespace(image_token_id=90, video_token_id=91),
        get_input_embeddings=lambda: torch.nn.Embedding(97, 8, _weight=torch.zeros(97, 8)),
    )
    inputs = {
        "pixel_values": torch.rand(16, 8),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
        "pixel_values_videos": torch.rand(32, 8),
        "video_grid_thw": torch.tensor([[2, 4, 4]]),
    }
    ids = torch.tensor([[3, *[90] * 4, 4, *[91] * 8, 5]])
    found = module._get_input_embeds(model, ids, **inputs)
    assert calls == [48]
    stock = module._get_input_embeds
    while hasattr(stock, "__wrapped__"):
        stock = stock.__wrapped__
    expected = stock(model, ids, **inputs)
    assert calls == [48, 16, 32]
    found, expected = (value if isinstance(value, dict) else {"inputs_embeds": value[0]} for value in (found, expected))
    assert torch.equal(found["inputs_embeds"], expected["inputs_embeds"])
    for one, other in zip(
        found.get("deepstack_visual_embeds") or (), expected.get("deepstack_visual_embeds") or (), strict=True
    ):
        assert torch.equal(one, other)
