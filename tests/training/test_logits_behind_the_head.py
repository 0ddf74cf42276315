"""Models that change their logits behind the head are found on the first micro-batch, and refused by name."""

from __future__ import annotations

import pytest
import torch
import transformers
from verl.workers.engine.fsdp import FSDPEngineWithLMHead
from verl.workers.utils.padding import response_from_nested

from verl_twgrpo.training.engines.fsdp import TWGRPOEngine
from verl_twgrpo.training.engines.head_pass_mixin import PASS_KEY, check_head

pytestmark = pytest.mark.slow

TINY = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "eos_token_id": 1, "pad_token_id": 0,
    "bos_token_id": None, "initializer_range": 0.3,
}  # fmt: skip
# the settings are the released ones of gemma-2-9b, granite-3.1-8b and command-r, in small; Gemma's cap is lower, as its
# logits are here
MODELS = {
    "Gemma2": {"head_dim": 32, "final_logit_softcapping": 5.0},
    "Granite": {"logits_scaling": 16.0},
    "Cohere": {"logit_scale": 0.0625},
}


def infer(engine, batch, **extra):
    data = batch.tensordict(
        text=True, temperature=1.0, calculate_entropy=True, compute_loss=False, use_dynamic_bsz=False,
        micro_batch_size_per_gpu=1, use_remove_padding=False, **extra,
    )  # fmt: skip
    with engine.eval_mode():
        output = engine.infer_batch(data)["model_output"]
    return torch.cat(response_from_nested(output["log_probs"], data["response_mask"]).unbind())


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_changes_its_logits_is_refused_by_the_setting_that_does_it(
    name, make_engine, checkpoints, ragged_batch, tmp_path
):
    config = getattr(transformers, f"{name}Config")(**TINY, **MODELS[name])
    torch.manual_seed(0)
    getattr(transformers, f"{name}ForCausalLM")(config).save_pretrained(tmp_path)
    for file in checkpoints["text"].glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    engine = make_engine(TWGRPOEngine, head=tmp_path)
    setting = next(key for key in MODELS[name] if key != "head_dim")
    with pytest.raises(ValueError, match=f"changes its logits behind the head .*{setting}=.* algorithm=grpo_token"):
        infer(engine, ragged_batch, **{PASS_KEY: {"divergence": "jsd", "tokens_per_chunk": 5}})
    # without a weights pass it trains
    torch.testing.assert_close(
        infer(engine, ragged_batch), infer(make_engine(FSDPEngineWithLMHead, head=tmp_path), ragged_batch)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_comparison_allows_one_rounding_and_no_more(dtype):
    model = torch.nn.Module()
    model.config = transformers.Qwen2Config()
    expected = torch.linspace(-6, 6, 50).to(dtype)[None]
    check_head(model, expected, expected + torch.finfo(dtype).eps * 3)
    with pytest.raises(ValueError, match="qwen2 changes its logits behind the head: they are up to"):
        check_head(model, expected, 30 * (expected / 30).tanh())
    with pytest.raises(ValueError, match="up to inf away"):
        check_head(model, expected, expected[:, :-1])
