"""Packed groups give what unpacked rows give: log-probs, entropies, D_t, losses and every parameter's gradient."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tensordict import NonTensorStack, TensorDict
from torch.distributed.tensor import DTensor
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import no_padding_2_padding, response_from_nested

from verl_twgrpo.training.engines.fsdp import TWGRPOEngine
from verl_twgrpo.training.engines.head_pass_mixin import PASS_KEY
from verl_twgrpo.training.engines.options import EngineOptions
from verl_twgrpo.training.engines.packed_groups_mixin import PACKED_KEY

# engines of four models take a minute of two cores
pytestmark = pytest.mark.slow

IMAGE, VIDEO, START, END = 90, 91, 92, 93
BACKEND = {"impl_backend": "torch"}
PATCH = {"untied": 1176, "tied": 1176, "qwen2_vl": 1176, "qwen3_vl": 1536}


@dataclass
class Prompt:
    """Tokens [P], positions [4, P], and what the processor made of its images and videos."""

    tokens: torch.Tensor
    positions: torch.Tensor
    media: dict[str, torch.Tensor] = field(default_factory=dict)


def make_prompt(model: str, media: str, length: int, seed: int) -> Prompt:
    """``length`` words with "", "image", "video" or "two videos" in their middle, whose positions are the grid's."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(3, 80, (length,), generator=generator)
    text = torch.arange(length).expand(3, -1)
    if not media:
        return Prompt(words, torch.arange(length).expand(4, -1))
    grids = {"image": [(1, 4, 4)], "video": [(2, 4, 4)], "two videos": [(2, 4, 4), (3, 4, 2)]}[media]
    before = length // 2
    tokens, positions, at = [words[:before]], [text[:, :before]], before
    for t, h, w in grids:
        box = torch.stack(torch.meshgrid(*(torch.arange(n) for n in (t, h // 2, w // 2)), indexing="ij")).reshape(3, -1)
        tokens += [torch.tensor([START]), torch.full((box.shape[1],), IMAGE if media == "image" else VIDEO)]
        tokens += [torch.tensor([END])]
        positions += [torch.full((3, 1), at), box + at + 1]
        at += 2 + int(box.max())
        positions += [torch.full((3, 1), at)]
        at += 1
    tokens.append(words[before:])
    positions.append(torch.arange(length - before).expand(3, -1) + at)
    patches = sum(t * h * w for t, h, w in grids)
    pixels = torch.randn(patches, PATCH[model], generator=generator)
    names = ("pixel_values", "image_grid_thw") if media == "image" else ("pixel_values_videos", "video_grid_thw")
    whole = torch.cat(tokens)
    mrope = torch.cat(positions, dim=1)
    return Prompt(
        whole,
        torch.cat([torch.arange(len(whole))[None], mrope]),
        dict(zip(names, (pixels, torch.tensor(grids)), strict=True)),
    )


def make_batch(rows: list[tuple[str, Prompt, int, bool]], text: bool = False) -> TensorDict:
    """Rows of (uid, prompt, tokens of the response, whether it is padding) as a worker gets them."""
    generator = torch.Generator().manual_seed(7)

    def jagged(values):
        return torch.nested.as_nested_tensor(values, layout=torch.jagged)

    responses = [torch.randint(3, 80, (length,), generator=generator) for _, _, length, _ in rows]
    masks = [torch.full_like(r, 0 if row[3] else 1) for r, row in zip(responses, rows, strict=True)]
    whole = [torch.cat([row[1].tokens, r]) for row, r in zip(rows, responses, strict=True)]
    positions = []
    for (_, prompt, length, _), tokens in zip(rows, whole, strict=True):
        behind = prompt.positions.amax(dim=1, keepdim=True)[1:].amax() + 1 + torch.arange(length)
        vision = torch.cat([prompt.positions[1:], behind.expand(3, -1)], dim=1)
        positions.append(torch.cat([torch.arange(len(tokens))[None], vision]))
    offsets = torch.tensor([0] + [len(tokens) for tokens in whole]).cumsum(0)
    data = tu.get_tensordict(
        {
            "prompts": jagged([row[1].tokens for row in rows]),
            "responses": jagged(responses),
            "input_ids": jagged(whole),
            "response_mask": jagged(masks),
            "loss_mask": jagged(masks),
            "uid": [row[0] for row in rows],
        }
    )
    merged = torch.cat(positions, dim=1)
    data["position_ids"] = (
        torch.nested.nested_tensor_from_jagged(merged[0], offsets)
        if text
        else torch.nested.nested_tensor_from_jagged(merged, offsets, jagged_dim=2)
    )
    if any(row[1].media for row in rows):
        data["multi_modal_inputs"] = NonTensorStack(*[dict(row[1].media) for row in rows])
    return data


def loss_function(model_output, data, dp_group=None):
    """Every token of a response counts otherwise, through its log-prob and its entropy."""
    log_probs = no_padding_2_padding(model_output["log_probs"], data)
    entropies = no_padding_2_padding(model_output["entropy"], data)
    mask = data["response_mask"].to_padded_tensor(0)
    tokens = data["responses"].to_padded_tensor(0)
    return ((log_probs * (tokens % 7 - 2.5) + 0.3 * entropies * (tokens % 3)) * mask).sum() / 50, {}


def run(engine, data, packed, forward_only=False, kind=None, temperature=0.7, **extra):
    """(loss and gradients) of an update, or the response parts of a forward-only pass."""
    data = data.copy()
    chosen = {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": len(data), "use_remove_padding": False} | extra
    tu.assign_non_tensor(data, temperature=temperature, calculate_entropy=True, **chosen)
    if packed:
        tu.assign_non_tensor(data, **{PACKED_KEY: "true"})
    if kind:
        tu.assign_non_tensor(data, **{PASS_KEY: {"divergence": kind, "tokens_per_chunk": 5}})
    if forward_only:
        with engine.eval_mode():
            output = engine.forward_backward_batch(data, None, forward_only=True)["model_output"]
        return {name: response_from_nested(field, data["response_mask"]).unbind() for name, field in output.items()}
    with engine.train_mode():
        engine.optimizer_zero_grad()
        loss = sum(engine.forward_backward_batch(data, loss_function)["loss"])
        gradients = {
            name: (p.grad.to_local() if isinstance(p.grad, DTensor) else p.grad).clone()
            for name, p in engine.module.named_parameters()
            if p.grad is not None
        }
        engine.optimizer_zero_grad()
    return loss, gradients


def assert_same_update(engine, data, **extra):
    loss, expected = run(engine, data, packed=False, **extra)
    packed_loss, actual = run(engine, data, packed=True, **extra)
    assert packed_loss == pytest.approx(loss, rel=1e-5, abs=1e-5)
    assert actual.keys() == expected.keys()
    largest = max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        # a key's bias shifts all scores of a query alike: its gradient is rounding, hence the second term
        assert (actual[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6 * largest, name


def assert_same_pass(engine, data, kind=None, **extra):
    expected = run(engine, data, packed=False, forward_only=True, kind=kind, **extra)
    actual = run(engine, data, packed=True, forward_only=True, kind=kind, **extra)
    assert actual.keys() == expected.keys()
    for name, rows in expected.items():
        for row, (one, other) in enumerate(zip(actual[name], rows, strict=True)):
            # D_t is a difference of sums over a group's entropies, which come to 12 ln 97 = 55
            atol = 1e-4 if name == "divergence" else 1e-5
            torch.testing.assert_close(one, other, atol=atol, rtol=1e-5, msg=lambda m, n=name, r=row: f"{n} {r}: {m}")


@pytest.fixture(scope="module")
def engines(make_engine):
    made = {}

    def get(head, **model):
        key = (head, *map(str, sorted(model.items())))
        if key not in made:
            made[key] = make_engine(TWGRPOEngine, head=head, **model)
        return made[key]

    return get


def three_groups(model, media="video"):
    """Groups of 3, 2 and 1 rows out of order, with unlike prompts, and a padding row."""
    prompts = {
        "a": make_prompt(model, media, 8, 1),
        "b": make_prompt(model, media and "two videos" if media != "image" else "image", 5, 2),
        "c": make_prompt(model, "", 9, 3),
        "pad": make_prompt(model, "", 2, 4),
    }
    lengths = [("a", 6), ("b", 9), ("a", 1), ("pad", 1), ("c", 5), ("b", 3), ("a", 8)]
    return make_batch([(uid, prompts[uid], length, uid == "pad") for uid, length in lengths], text=model == "text")


@pytest.mark.parametrize(
    "model, media",
    [
        ("untied", "video"), ("untied", "image"), ("tied", "video"), ("qwen2_vl", "video"), ("qwen3_vl", "video"),
        ("qwen3_vl", "image"), ("text", ""),
    ],
)  # fmt: skip
def test_update_and_old_log_probs_equal_the_unpacked(engines, model, media):
    engine, data = engines(model), three_groups(model, media)
    engine.take_packing_counts()
    assert_same_update(engine, data)
    prompts, responses = data["prompts"].offsets().diff(), data["responses"].offsets().diff()
    # rows 0, 1, 3 and 4 are the first of their prompts
    once = int(prompts[[0, 1, 3, 4]].sum() + responses.sum())
    assert engine.take_packing_counts() == {"tokens": once, "tokens_unpacked": int(prompts.sum() + responses.sum())}
    assert_same_pass(engine, data)
    assert_same_pass(engine, data, kind="jsd")


@pytest.mark.parametrize(
    "options",
    [
        {"micro_batch_size_per_gpu": 1},
        {"use_dynamic_bsz": True, "max_token_len_per_gpu": 70},
        {"temperature": 1.0, "calculate_sum_pi_squared": True},
    ],
)
def test_any_split_into_micro_batches_gives_the_same(engines, options):
    engine, data = engines("untied"), three_groups("untied")
    assert_same_update(engine, data, **options)
    assert_same_pass(engine, data, kind="live", **options)


@pytest.mark.parametrize(
    "model",
    [
        {"lora_rank": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
        {"enable_gradient_checkpointing": True},
    ],
)
def test_lora_and_gradient_checkpointing(make_engine, model):
    engine = make_engine(TWGRPOEngine, **model)
    if "lora_rank" in model:
        # as made, the second factor is 0, and with it the gradient of the first
        for name, parameter in engine.module.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    assert_same_update(engine, three_groups("untied"), micro_batch_size_per_gpu=1)
    assert_same_pass(engine, three_groups("untied"), kind="jsd")


def test_in_bfloat16_packing_moves_no_more_than_another_order_of_unpacked_rows_does(make_engine):
    engine, data = make_engine(TWGRPOEngine, dtype="bf16"), three_groups("untied")
    once = {"micro_batch_size_per_gpu": len(data)}
    by_row = {"micro_batch_size_per_gpu": 1}

    def log_probs(packed, extra):
        return torch.cat(list(run(engine, data, packed, forward_only=True, **extra)["log_probs"])).float()

    unpacked_N, in_other_order_N, packed_N = log_probs(False, once), log_probs(False, by_row), log_probs(True, once)
    # log-probs of 4 to 8 have places of 1/32 in bfloat16
    assert (packed_N - unpacked_N).abs().max() <= max(2 * (in_other_order_N - unpacked_N).abs().max(), 1 / 32)
    first, *others = (run(engine, data, packed, **extra)[1] for packed, extra in ((0, once), (0, by_row), (1, once)))
    noise, gap = (torch.cat([(other[name] - first[name]).flatten() for name in first]).norm() for other in others)
    size = torch.cat([gradient.flatten() for gradient in first.values()]).norm()
    assert gap <= 2 * noise + 1e-3 * size
    assert gap < 0.02 * size


def test_a_frozen_tower_stays_without_gradient(make_engine):
    engine = make_engine(TWGRPOEngine, options=EngineOptions(freeze_vision_tower=True))
    data = three_groups("untied")
    assert_same_update(engine, data)
    assert not any(".visual." in name for name in run(engine, data, packed=True)[1])


# an example takes half a second: shrinking one that fails would take minutes
@settings(max_examples=12, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    groups=st.lists(
        st.tuples(
            st.integers(1, 9),  # words of the prompt
            st.sampled_from(["", "image", "video", "two videos"]),
            st.lists(st.integers(1, 9), min_size=1, max_size=12),  # responses
        ),
        min_size=1,
        max_size=3,
    ),
    padding=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_odd_shapes(engines, groups, padding, seed):
    rows = []
    for number, (words, media, lengths) in enumerate(groups):
        prompt = make_prompt("qwen2_vl", media, words, seed + number)
        rows += [(f"group {number}", prompt, length, False) for length in lengths]
    rows += [(f"padding {k}", make_prompt("qwen2_vl", "", 2, k), 1, True) for k in range(padding)]
    rows = [rows[k] for k in torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()]
    engine, data = engines("qwen2_vl"), make_batch(rows)
    assert_same_update(engine, data)
    assert_same_pass(engine, data, kind="jsd")


def test_rows_of_a_group_that_differ_in_the_prompt_run_by_themselves(engines):
    prompt = make_prompt("untied", "video", 6, 1)
    other_words = Prompt(prompt.tokens.clone(), prompt.positions, prompt.media)
    other_words.tokens[0] += 1
    other_pixels = {key: value + 1 if value.is_floating_point() else value for key, value in prompt.media.items()}
    other_times = Prompt(prompt.tokens, prompt.positions * 2, prompt.media)
    prompts = [prompt, other_words, Prompt(prompt.tokens, prompt.positions, other_pixels), other_times, prompt]
    data = make_batch([("a", p, 4, False) for p in prompts])
    engine = engines("untied")
    engine.take_packing_counts()
    assert_same_update(engine, data)
    assert engine.take_packing_counts()["tokens"] == 4 * len(prompt.tokens) + 5 * 4


def test_the_attention_of_before_is_back_even_after_an_error(engines):
    engine, data = engines("untied"), three_groups("untied")
    before = run(engine, data, packed=False, forward_only=True)
    flagged = data.copy()
    settings = {"temperature": 0.7, "use_dynamic_bsz": False, "micro_batch_size_per_gpu": 7, PACKED_KEY: "auto"}
    tu.assign_non_tensor(flagged, **settings)

    def broken(**_):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), engine.train_mode():
        engine.forward_backward_batch(flagged, broken)
    after = run(engine, data, packed=False, forward_only=True)
    for one, other in zip(before["log_probs"], after["log_probs"], strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_what_cannot_be_packed_says_so_and_runs_unpacked_under_auto(engines, caplog):
    engine, data = engines("untied"), three_groups("untied")
    with pytest.raises(ValueError, match="packed_groups=true: top-k distillation .* set it to auto or false"):
        run(engine, data, packed=True, distillation_use_topk=True)
    expected = run(engine, data, packed=False, forward_only=True)
    engine.take_packing_counts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.module.config, "model_type", "some_model")
        data_auto = data.copy()
        tu.assign_non_tensor(data_auto, **{PACKED_KEY: "auto"})
        actual = run(engine, data_auto, packed=False, forward_only=True)
    assert "groups run unpacked: some_model is not among the models that were tried" in caplog.text
    assert engine.take_packing_counts()["tokens"] == 0
    for one, other in zip(actual["log_probs"], expected["log_probs"], strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


@pytest.mark.parametrize("model", ["untied", "tied", "qwen3_vl"])
def test_fused_kernels_give_the_same(engines, model):
    engine = engines(model, use_fused_kernels=True, fused_kernel_options=BACKEND)
    data = three_groups(model)
    assert_same_update(engine, data, use_fused_kernels=True)
    assert_same_pass(engine, data, kind="jsd", use_fused_kernels=True)
    # and what they give is what logits give
    unfused = run(engines(model), data, packed=True, forward_only=True)
    fused = run(engine, data, packed=True, forward_only=True, use_fused_kernels=True)
    for one, other in zip(fused["log_probs"], unfused["log_probs"], strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)
