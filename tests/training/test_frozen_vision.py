"""actor_rollout_ref.actor.freeze_vision_tower does what it says."""

from __future__ import annotations

import pytest
import torch
from tensordict import NonTensorStack
from torch import nn
from torch.distributed.tensor import DTensor

from verl_twgrpo.training.engines.fsdp import TWGRPOEngine
from verl_twgrpo.training.engines.options import EngineOptions
from verl_twgrpo.training.vision import freeze_vision_tower, vision_towers


def local(tensor):
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).clone()


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [True, False])
def test_the_tower_gets_no_gradient_and_stays_and_all_else_moves(make_engine, ragged_batch, freeze):
    engine = make_engine(TWGRPOEngine, options=EngineOptions(freeze_vision_tower=freeze))
    before = {name: local(p) for name, p in engine.module.named_parameters()}

    def loss_function(model_output, data, dp_group=None):
        return -model_output["log_probs"].values().mean(), {}

    picture = {"pixel_values": torch.randn(16, 1176), "image_grid_thw": torch.tensor([[1, 4, 4]])}
    ragged_batch.prompts = [torch.cat([torch.tensor([92, 90, 90, 90, 90, 93]), p]) for p in ragged_batch.prompts]
    data = ragged_batch.tensordict(
        temperature=1.0, use_remove_padding=False, use_dynamic_bsz=False, micro_batch_size_per_gpu=7
    )
    data["multi_modal_inputs"] = NonTensorStack(*[picture] * len(ragged_batch.prompts))
    with engine.train_mode():
        engine.train_batch(data, loss_function)
    for name, parameter in engine.module.named_parameters():
        in_tower = ".visual." in f".{name}"
        moved = not torch.equal(local(parameter), before[name])
        assert parameter.requires_grad == (not (freeze and in_tower)), name
        # the attention's key bias shifts every score of a query alike: it has no gradient to speak of
        if not name.endswith("k_proj.bias"):
            assert moved == (not (freeze and in_tower)), name


def test_a_text_model_has_nothing_to_freeze():
    with pytest.raises(ValueError, match="freeze_vision_tower=True: Linear has no module called"):
        freeze_vision_tower(nn.Linear(2, 2))


def test_only_the_outermost_tower_counts():
    model = nn.Module()
    model.vision_tower = nn.Module()
    model.vision_tower.vision_model = nn.Linear(2, 2)
    assert vision_towers(model) == [model.vision_tower]


def test_each_of_several_towers_freezes():
    model = nn.Module()
    model.visual, model.audio, model.second = nn.Linear(2, 2), nn.Linear(2, 2), nn.Module()
    model.second.vision_model = nn.Linear(2, 2)
    assert freeze_vision_tower(model) == 4
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trainable == ["audio.weight", "audio.bias"]


def test_one_engines_options_are_not_anothers(make_engine):
    frozen = make_engine(TWGRPOEngine, options=EngineOptions(freeze_vision_tower=True))
    free = make_engine(TWGRPOEngine)
    for engine, expected in ((frozen, False), (free, True)):
        assert {p.requires_grad for p in engine.module.model.visual.parameters()} == {expected}
