"""What a GPU has to hold at the two heights of a step, rollout and update: an estimate, not measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from omegaconf import DictConfig

from .model import ModelSizes

# bytes per token and unit of width that a layer keeps for its backward pass in 16 bits, attention scores aside, which
# flash attention does not store (Korthikanti et al., arXiv 2205.05198, Section 4.1)
PER_LAYER = 34


@dataclass(frozen=True)
class GPUMemory:
    """Bytes per GPU. state: parameters, gradients, optimizer. activations, logits: of one micro-batch of ``tokens``.

    gathered: the head or the embedding, whole, as FSDP has it while it is used. rollout_weights: vLLM's copy. share: of
    a GPU, what vLLM takes. beside: of the state, what stays on the GPU during rollouts.
    """

    tokens: int
    state: int
    activations: int
    logits: int
    gathered: int
    rollout_weights: int
    share: float
    beside: int

    @property
    def update(self) -> int:
        """Bytes during an update; vLLM sleeps then."""
        return self.state + self.activations + self.logits + self.gathered

    @property
    def needed(self) -> int:
        """The smallest GPU on which update, vLLM's weights within its share, and the state beside it have room."""
        return max(self.update, int(self.rollout_weights / self.share), int(self.beside / (1 - self.share)))


def gpu_memory(config: DictConfig, sizes: ModelSizes, state: Mapping[str, int]) -> GPUMemory:
    """The estimate; ``state`` is the training state per rank, by part (``resources.training_state_bytes``)."""
    ref = config.actor_rollout_ref
    actor, rollout, engine = ref.actor, ref.rollout, ref.actor.fsdp_config
    longest = rollout.prompt_length + rollout.response_length
    if actor.use_dynamic_bsz:
        tokens = max(actor.ppo_max_token_len_per_gpu, longest)
    else:
        tokens = (actor.ppo_micro_batch_size_per_gpu or 1) * longest
    kept = 2 * sizes.layers if ref.model.get("enable_gradient_checkpointing", True) else PER_LAYER * (sizes.layers - 1)
    moved = {
        "parameters": engine.param_offload,
        "gradients": engine.param_offload,
        "optimizer": engine.optimizer_offload,
    }
    whole = 0 if engine.offload_policy else sum(state.values())
    beside = 0 if engine.offload_policy else sum(number for part, number in state.items() if not moved[part])
    return GPUMemory(
        tokens=tokens,
        state=whole,
        # the inputs of all layers, recomputed one at a time
        activations=(kept + PER_LAYER) * tokens * sizes.hidden,
        # logits and their gradient, in 16 bits
        logits=2 * 2 * tokens * sizes.vocabulary,
        gathered=2 * sizes.vocabulary * sizes.hidden,
        rollout_weights=2 * sizes.parameters // rollout.tensor_model_parallel_size,
        share=min(max(rollout.gpu_memory_utilization, 0.01), 0.99),
        beside=beside,
    )
