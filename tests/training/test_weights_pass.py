"""The weights pass inside verl's FSDP2 engine, against verl's own log-probs and the plain definition of D_t."""

from __future__ import annotations

import pytest
import torch
from verl.workers.engine.fsdp import FSDPEngineWithLMHead
from verl.workers.utils.padding import response_from_nested

from verl_twgrpo.algorithm import group_divergence
from verl_twgrpo.training.engines.fsdp import TWGRPOEngine
from verl_twgrpo.training.engines.head_pass_mixin import MIXTURE, PASS_KEY, _plain_weight
from verl_twgrpo.training.groups import mixtures_of_outputs

pytestmark = pytest.mark.slow

SETTINGS = {"temperature": 0.7, "calculate_entropy": True, "compute_loss": False, "use_dynamic_bsz": False}


def infer(engine, batch, micro_batch_size, kind=None, text=False, mixtures=None, **extra):
    """Response parts of the fields that verl's old-log-prob step returns, one tensor per row."""
    settings = SETTINGS | {"micro_batch_size_per_gpu": micro_batch_size} | extra
    if kind is not None:
        settings[PASS_KEY] = {"divergence": kind, "tokens_per_chunk": 5}
    settings.setdefault("use_remove_padding", False)
    data = batch.tensordict(text, **settings)
    if mixtures is not None:
        data[MIXTURE] = torch.tensor(mixtures)
    with engine.eval_mode():
        output = engine.infer_batch(data)["model_output"]
    return {name: response_from_nested(field, data["response_mask"]).unbind() for name, field in output.items()}


def plain_divergence(engine, batch, uid, kind, temperature):
    """D_t of one group from all its logits at once."""
    rows = [k for k, u in enumerate(batch.uids) if u == uid]
    lengths = [len(batch.responses[k]) for k in rows]
    log_probs = torch.zeros(len(rows), max(lengths), engine.module.config.get_text_config().vocab_size)
    for g, k in enumerate(rows):
        ids = torch.cat([batch.prompts[k], batch.responses[k]])[None]
        with torch.no_grad():
            positions = torch.arange(ids.shape[1]).expand(4, 1, -1)
            logits = (
                engine.module(input_ids=ids, position_ids=positions, use_cache=False).logits[0].float() / temperature
            )
        start = len(batch.prompts[k]) - 1
        log_probs[g, : lengths[g]] = logits[start : start + lengths[g]].log_softmax(-1)
    return group_divergence(log_probs.double(), lengths, kind=kind), lengths, rows


@pytest.mark.parametrize("head", ["untied", "tied"])
@pytest.mark.parametrize("kind", ["jsd", "released", "live"])
def test_log_probs_entropy_and_divergence_agree_with_verl_and_with_the_definition(
    make_engine, ragged_batch, head, kind
):
    verls = infer(make_engine(FSDPEngineWithLMHead, head=head), ragged_batch, 1)
    engine = make_engine(TWGRPOEngine, head=head)
    ours = infer(engine, ragged_batch, 1, kind)
    for row, padding in enumerate(ragged_batch.padding):
        if not padding:
            torch.testing.assert_close(ours["log_probs"][row], verls["log_probs"][row], atol=2e-5, rtol=1e-5)
            torch.testing.assert_close(ours["entropy"][row], verls["entropy"][row], atol=2e-5, rtol=1e-5)
    for uid in ("a", "b", "c"):
        expected_T, lengths, rows = plain_divergence(engine, ragged_batch, uid, kind, SETTINGS["temperature"])
        for row, length in zip(rows, lengths, strict=True):
            torch.testing.assert_close(ours["divergence"][row].double(), expected_T[:length], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("extra", [{}, {"use_dynamic_bsz": True, "max_token_len_per_gpu": 40}])
@pytest.mark.parametrize("micro_batch_size", [1, 7])
def test_micro_batches_may_cut_groups_anywhere(make_engine, ragged_batch, micro_batch_size, extra):
    engine = make_engine(TWGRPOEngine)
    whole, cut = infer(engine, ragged_batch, 7, "jsd"), infer(engine, ragged_batch, micro_batch_size, "jsd", **extra)
    for name in ("log_probs", "entropy", "divergence"):
        for expected, actual in zip(whole[name], cut[name], strict=True):
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_removed_padding_gives_the_same(make_engine, ragged_batch):
    # a text model: verl's patch of Qwen2.5-VL for packed rows needs flash attention
    padded = infer(make_engine(TWGRPOEngine, head="text"), ragged_batch, 1, "jsd", text=True)
    packed = infer(
        make_engine(TWGRPOEngine, head="text", use_remove_padding=True),
        ragged_batch,
        3,
        "jsd",
        text=True,
        use_remove_padding=True,
        use_dynamic_bsz=True,
        max_token_len_per_gpu=64,
    )
    for name in ("log_probs", "entropy", "divergence"):
        for expected, actual in zip(padded[name], packed[name], strict=True):
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_an_output_that_is_not_its_rollouts_last_enters_no_mixture(make_engine, ragged_batch):
    engine = make_engine(TWGRPOEngine)
    keys = ["a_0_0", "b_0_0", "a_0_1", "pad_0_0", "c_0_0", "b_1_0", "a_1_0"]
    mixtures = mixtures_of_outputs(keys)
    assert mixtures_of_outputs(["a_0_0", "b_0_0", "a_1_0"]) is None
    found = infer(engine, ragged_batch, 1, "jsd", mixtures=mixtures)
    whole = infer(engine, ragged_batch, 1, "jsd")
    # the first row's rollout went on in the third: those two rows and the last are one prompt's
    assert found["divergence"][0].abs().max() < 1e-5
    for row, padding in enumerate(ragged_batch.padding):
        if not padding:
            torch.testing.assert_close(found["log_probs"][row], whole["log_probs"][row])
    ragged_batch.uids[0] = "alone"
    expected_T, lengths, rows = plain_divergence(engine, ragged_batch, "a", "jsd", SETTINGS["temperature"])
    assert rows == [2, 6]
    for row, length in zip(rows, lengths, strict=True):
        torch.testing.assert_close(found["divergence"][row].double(), expected_T[:length], rtol=1e-4, atol=1e-5)


def test_a_padding_row_enters_no_mixture(make_engine, ragged_batch):
    engine = make_engine(TWGRPOEngine)
    with_padding = infer(engine, ragged_batch, 1, "jsd")
    row = ragged_batch.padding.index(True)
    assert with_padding["divergence"][row].tolist() == [0.0]
    # as if verl had given it a group's own uid
    ragged_batch.uids[row] = "a"
    joined = infer(engine, ragged_batch, 1, "jsd")
    for expected, actual in zip(with_padding["divergence"], joined["divergence"], strict=True):
        torch.testing.assert_close(actual, expected, atol=0, rtol=0)


def test_the_head_sees_response_positions_only_and_once(make_engine, ragged_batch, monkeypatch):
    from verl_twgrpo.algorithm import head_pass

    engine = make_engine(TWGRPOEngine)
    infer(engine, ragged_batch, 1, "jsd")  # the first micro-batch of all checks the head
    rows_in_forward, rows_in_pass = [], []
    head = engine.module.get_output_embeddings()
    forward = head.forward
    monkeypatch.setattr(head, "forward", lambda hidden: rows_in_forward.append(hidden.shape[1]) or forward(hidden))
    project = head_pass._project
    monkeypatch.setattr(
        head_pass, "_project", lambda hidden, *a, **k: rows_in_pass.append(len(hidden)) or project(hidden, *a, **k)
    )
    infer(engine, ragged_batch, 1, "jsd")
    assert sum(rows_in_forward) == 0
    live = [len(r) for r, padding in zip(ragged_batch.responses, ragged_batch.padding, strict=True) if not padding]
    assert sum(rows_in_pass) == sum(live)


def test_lora_on_the_body_leaves_the_head_plain(make_engine, ragged_batch):
    lora = {"lora_rank": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    verls = infer(make_engine(FSDPEngineWithLMHead, **lora), ragged_batch, 1)
    ours = infer(make_engine(TWGRPOEngine, **lora), ragged_batch, 1, "jsd")
    for row, padding in enumerate(ragged_batch.padding):
        if not padding:
            torch.testing.assert_close(ours["log_probs"][row], verls["log_probs"][row], atol=2e-5, rtol=1e-5)


def test_lora_on_the_head_is_refused():
    from peft import LoraConfig
    from peft.tuners.lora import Linear

    config = LoraConfig(r=2, target_modules=["lm_head"])
    with pytest.raises(ValueError, match="head .* is not a plain linear layer"):
        _plain_weight(Linear(torch.nn.Linear(4, 9, bias=False), "default", config, r=2))


def test_without_the_flag_the_engine_is_verls(make_engine, ragged_batch):
    verls, ours = (infer(make_engine(cls), ragged_batch, 1) for cls in (FSDPEngineWithLMHead, TWGRPOEngine))
    assert verls.keys() == ours.keys()
    for name in verls:
        for expected, actual in zip(verls[name], ours[name], strict=True):
            torch.testing.assert_close(actual, expected, atol=0, rtol=0)


def test_in_bfloat16_the_ratio_to_the_updates_log_probs_stays_near_one(make_engine, ragged_batch):
    verls = infer(make_engine(FSDPEngineWithLMHead, dtype="bf16"), ragged_batch, 1)
    ours = infer(make_engine(TWGRPOEngine, dtype="bf16"), ragged_batch, 1, "jsd")
    gaps = [
        (ours["log_probs"][row] - verls["log_probs"][row].float()).abs()
        for row, padding in enumerate(ragged_batch.padding)
        if not padding
    ]
    # verl without flash-attn rounds the log-probs themselves to bfloat16 as well: 2 ** -8 of their size
    assert torch.cat(gaps).median() < 0.03


def test_in_bfloat16_log_probs_are_those_of_the_updates_rounded_logits(make_engine, ragged_batch):
    engine = make_engine(TWGRPOEngine, dtype="bf16")
    ours = infer(engine, ragged_batch, 1, "jsd")["log_probs"]
    gaps = []
    for row, padding in enumerate(ragged_batch.padding):
        if padding:
            continue
        response = ragged_batch.responses[row]
        ids = torch.cat([ragged_batch.prompts[row], response])[None]
        positions = torch.arange(ids.shape[1]).expand(4, 1, -1)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            logits = engine.module(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
        assert logits.dtype == torch.bfloat16
        scaled = logits[-len(response) - 1 : -1] / torch.tensor(SETTINGS["temperature"], dtype=torch.bfloat16)
        expected = scaled.float().log_softmax(-1).gather(1, response[:, None])[:, 0]
        gaps.append((ours[row] - expected).abs())
    # here and there another order of the sums in the GEMM rounds a logit the other way
    assert (torch.cat(gaps) < 1e-4).float().mean() > 0.8


def test_a_response_with_masked_tokens_inside_keeps_its_length(make_engine, ragged_batch):
    engine = make_engine(TWGRPOEngine)
    expected = infer(engine, ragged_batch, 1, "jsd")
    data = ragged_batch.tensordict(
        **SETTINGS,
        micro_batch_size_per_gpu=1,
        use_remove_padding=False,
        **{PASS_KEY: {"divergence": "jsd", "tokens_per_chunk": 5}},
    )
    # what a tool said in the middle of the longest response
    data["response_mask"].unbind()[1][2:5] = 0
    assert data["response_mask"].values().sum() == sum(map(len, ragged_batch.responses)) - 1 - 3
    with engine.eval_mode():
        output = engine.infer_batch(data)["model_output"]
    for name, values in output.items():
        actual = response_from_nested(values, data["response_mask"]).unbind()
        for one, other in zip(actual, expected[name], strict=True):
            torch.testing.assert_close(one, other, atol=0, rtol=0)
