"""Freeze the vision tower (Section 4.1 of the paper trains with it frozen; verl 0.9.1's own switch has no effect)."""

from __future__ import annotations

from torch import nn

# Where Hugging Face's vision-language models keep the tower: Qwen-VL, then LLaVA and its kin.
TOWER_NAMES = ("visual", "vision_tower", "vision_model")


def vision_towers(module: nn.Module) -> list[nn.Module]:
    """The vision tower of a model, or none for a text model."""
    towers = [child for name, child in module.named_modules() if name.rsplit(".", 1)[-1] in TOWER_NAMES]
    nested = {inner for tower in towers for inner in tower.modules() if inner is not tower}
    return [tower for tower in towers if tower not in nested]


def freeze_vision_tower(module: nn.Module) -> int:
    """Take the gradient off every parameter of the vision tower; returns how many tensors.

    Raises:
        ValueError: if the model has no vision tower.
    """
    towers = vision_towers(module)
    if not towers:
        raise ValueError(
            f"actor_rollout_ref.actor.freeze_vision_tower=True: {type(module).__name__} has no module called "
            f"{', '.join(TOWER_NAMES)}; set it to False"
        )
    frozen = [parameter for tower in towers for parameter in tower.parameters()]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return len(frozen)
