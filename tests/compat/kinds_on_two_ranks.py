"""One of two ranks of a tiny model under FSDP2, each with another kind of micro-batch; run by test_one_tower_call.py.

``kinds_on_two_ranks.py WAY CHECKPOINT PLAN``: WAY is "mended" or "stock", PLAN is JSON, a list of [kind of rank 0, kind
of rank 1]. For each, losses and gradients (their mean over ranks) are compared with those of a model in one piece.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
import verl  # noqa: F401 - the plugin
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForImageTextToText
from verl.models.transformers.monkey_patch import apply_monkey_patch

IMAGE, VIDEO, START, END = 90, 91, 92, 93
TOKENS = 4  # of an image of 4 x 4 patches, and of a video of two frames of that size


def micro_batch(kind: str, model) -> dict:
    """A row with an image, a video, both, or text alone."""
    vision = model.config.vision_config
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    ids, inputs = [5, 6], {}
    for wanted, token, pixels, grid in (
        ("image", IMAGE, "pixel_values", "image_grid_thw"),
        ("video", VIDEO, "pixel_values_videos", "video_grid_thw"),
    ):
        if kind in (wanted, "both"):
            ids += [START, *[token] * TOKENS, END]
            generator = torch.Generator().manual_seed(token)
            inputs[pixels] = torch.rand(16, patch, generator=generator)
            inputs[grid] = torch.tensor([[1, 4, 4]])
    ids += [7, 8, 9]
    positions = torch.arange(len(ids)).expand(4, 1, -1)
    return {"input_ids": torch.tensor([ids]), "position_ids": positions, "use_cache": False, **inputs}


def loss(model, kind: str) -> torch.Tensor:
    return model(**micro_batch(kind, model)).logits.float().square().mean()


def load(checkpoint: str):
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, attn_implementation="sdpa")
    apply_monkey_patch(model, use_remove_padding=False)
    return model


def main(checkpoint: str, plan: list[list[str]], patience: timedelta) -> None:
    dist.init_process_group("gloo", timeout=patience)
    plain, sharded = load(checkpoint), load(checkpoint)
    for block in [*sharded.model.visual.blocks, *sharded.model.language_model.layers]:
        fully_shard(block)
    fully_shard(sharded)
    for kinds in plan:
        plain.zero_grad()
        sharded.zero_grad()
        expected = [loss(plain, kind) for kind in kinds]
        (sum(expected) / 2).backward()
        found = loss(sharded, kinds[dist.get_rank()])
        found.backward()
        torch.testing.assert_close(found, expected[dist.get_rank()])
        for (name, value), other in zip(sharded.named_parameters(), plain.parameters(), strict=True):
            gradient = torch.zeros_like(other) if other.grad is None else other.grad
            torch.testing.assert_close(
                value.grad.full_tensor(), gradient, msg=lambda text, name=name: f"{name}: {text}"
            )
    dist.destroy_process_group()


if __name__ == "__main__":
    if sys.argv[1] == "stock":
        from verl.models.transformers import qwen2_vl

        while hasattr(qwen2_vl._get_input_embeds, "__wrapped__"):
            qwen2_vl._get_input_embeds = qwen2_vl._get_input_embeds.__wrapped__
    # a rank of the stock code waits for ever
    patience = timedelta(seconds=60 if sys.argv[1] == "stock" else 300)
    main(sys.argv[2], json.loads(sys.argv[3]), patience)
