"""One of two ranks that take a step with fused kernels; run by test_fused_head.py.

``fused_on_two_ranks.py CHECKPOINT...``: for each, log-probs, entropies and every gradient of verl's FSDP2 engine with
fused kernels are compared with those of the engine without. The ranks have unlike losses, so that a gradient which is
not reduced over them shows.
"""

from __future__ import annotations

import sys

import torch
import verl  # noqa: F401 - the plugin
from conftest import Batch, build_engine
from torch.distributed.tensor import DTensor
from verl.workers.engine.fsdp import FSDPEngineWithLMHead

FUSED = {"use_fused_kernels": True, "fused_kernel_options": {"impl_backend": "torch"}}


def step(folder: str, fused: bool) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Log-probs and entropies, and the gradient of each parameter, whole."""
    generator = torch.Generator().manual_seed(1)
    prompts, responses = (
        [torch.randint(3, 80, (n,), generator=generator) for n in sizes] for sizes in ((7, 5), (6, 9))
    )
    rank = torch.distributed.get_rank()
    engine = build_engine(FSDPEngineWithLMHead, folder, **(FUSED if fused else {}))
    seen = {}

    def loss(model_output, data, dp_group=None):
        total = 0.0
        for name in ("log_probs", "entropy"):
            values = model_output[name].values()
            seen.setdefault(name, []).append(values.detach())
            total = total + (values * torch.linspace(0.5, 1.5, len(values))).sum() * (1 + 2 * rank)
        return -total, {}

    data = Batch(prompts, responses, ["a", "b"], [False, False]).tensordict(
        temperature=0.7, calculate_entropy=True, use_dynamic_bsz=False, micro_batch_size_per_gpu=1,
        use_remove_padding=False, use_fused_kernels=fused,
    )  # fmt: skip
    with engine.train_mode():
        engine.forward_backward_batch(data, loss, forward_only=False)
        gradients = {
            name: (parameter.grad.full_tensor() if isinstance(parameter.grad, DTensor) else parameter.grad).clone()
            for name, parameter in engine.module.named_parameters()
            if parameter.grad is not None
        }
    return {name: torch.cat(values) for name, values in seen.items()}, gradients


def main(folders: list[str]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("cpu:gloo")
    for folder in folders:
        (values, gradients), (expected_values, expected) = step(folder, fused=True), step(folder, fused=False)
        for name, value in expected_values.items():
            torch.testing.assert_close(values[name], value, atol=2e-5, rtol=1e-5)
        assert gradients.keys() == expected.keys()
        largest = max(gradient.norm() for gradient in expected.values())
        for name, gradient in expected.items():
            gap = (gradients[name] - gradient).norm()
            assert gap <= 1e-5 * gradient.norm() + 1e-6 * largest, (folder, name, float(gap), float(gradient.norm()))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
