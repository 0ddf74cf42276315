"""Fused kernels (``actor_rollout_ref.model.use_fused_kernels``) inside the call of the head that they replace.

verl's fused forwards read ``self.lm_head.weight`` and never call the head (``forward_with_torch_backend`` and
``forward_with_triton_backend`` in verl/models/transformers/{qwen2_vl,qwen3_vl,qwen3_5,dense_common}.py). Under FSDP2 a
head with a weight of its own is gathered, and its gradient reduced, by hooks around its call: without the call
Qwen2.5-VL ends in "mixed torch.Tensor and DTensor", and Qwen3-VL and Qwen3.5, which gather the weight by hand, train on
with a gradient of the head that is never reduced over ranks. Here the model's own forward calls the head as ever, and
the head computes log-probs and entropies instead of logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType, ModuleType
from typing import Any

import torch
import wrapt

from verl_twgrpo.compat.workaround import Workaround

# Attribute of a model by which verl's engine says which kernels it wants, None for logits; verl sets it.
BACKEND = "_verl_fused_kernels_backend"


def compute_inside_the_head(monkey_patch: ModuleType) -> None:
    """Wrap ``patch_forward_with_backends``, which gives a model's class the fused forward: the model gets ours."""

    def patch(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> None:
        model = args[0] if args else kwargs["model"]
        plain = type(model).forward
        wrapped(*args, **kwargs)
        stock = type(model).forward
        if stock is not plain:
            # on this model: verl's change of its class reaches every other engine of the process
            type(model).forward = plain
            model.forward = MethodType(fused_forward(plain, stock), model)

    wrapt.wrap_function_wrapper(monkey_patch, "patch_forward_with_backends", patch)


def fused_forward(plain: Callable[..., Any], stock: Callable[..., Any]) -> Callable[..., Any]:
    """A model's forward with verl's fused signature, whose output has ``log_probs`` and ``entropy`` [B, L].

    plain: the model's forward with logits, which calls the head; stock: verl's fused one, for the class of its output.
    """

    def forward(
        self: Any,
        input_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        temperature: float = 1.0,
        shift_labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        backend = getattr(self, BACKEND, None)
        if backend is None:
            return plain(self, input_ids=input_ids, **kwargs)
        targets = shift_labels
        if targets is None:
            known = labels if labels is not None else input_ids
            if known is None:
                raise ValueError("fused kernels need labels or input_ids")
            targets = torch.roll(known, shifts=-1, dims=-1)
        with _computing(self.get_output_embeddings(), targets, temperature, backend):
            output = plain(self, input_ids=input_ids, **kwargs)
        log_probs, entropy = output.logits
        return _output_class(stock)(log_probs=log_probs, entropy=entropy, hidden_states=output.hidden_states)

    return forward


@contextmanager
def _computing(head: torch.nn.Module, targets: torch.Tensor, temperature: float, backend: str) -> Iterator[None]:
    if getattr(head, "bias", None) is not None:
        raise ValueError("use_fused_kernels=True: the head has a bias, which verl's fused kernels leave out")

    def compute(hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if backend == "triton":
            from verl.utils.kernel.linear_cross_entropy import linear_cross_entropy

            return linear_cross_entropy(hidden, head.weight, targets, temperature, "none")
        from verl.utils.experimental.torch_functional import FusedLinearForPPO

        kernel = FusedLinearForPPO(impl_backend=backend)
        return kernel(hidden_states=hidden, vocab_weights=head.weight, input_ids=targets, temperature=temperature)

    # looked up by the module's call, between the hooks that gather the weight and reduce its gradient
    head.forward = compute  # type: ignore[method-assign]
    try:
        yield
    finally:
        del head.forward


def _output_class(stock: Callable[..., Any]) -> Any:
    """The class of outputs with log-probs in the module of verl's fused forward."""
    names: dict[str, Any] = getattr(stock, "__globals__", {})
    (found,) = {value for name, value in names.items() if name.endswith("CausalLMOutputForPPO")}
    return found


WORKAROUND = Workaround(
    module="verl.models.transformers.monkey_patch",
    apply=compute_inside_the_head,
    because="its fused kernels go past the head's call: FSDP2 neither gathers an untied head nor reduces its gradient",
    versions="verl==0.9.1",
    link="patches/0009-fused-head.patch",
)
