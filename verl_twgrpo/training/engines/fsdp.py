"""verl's FSDP engine with the head pass and packed groups inside."""

from __future__ import annotations

from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp import FSDPEngineWithLMHead

from verl_twgrpo.training.engines.head_pass_mixin import HeadPassMixin
from verl_twgrpo.training.engines.packed_groups_mixin import PackedGroupsMixin

# Under this key verl's registry finds the engine; verl's own keeps "language_model".
MODEL_TYPE = "tw_grpo_language_model"


@EngineRegistry.register(model_type=MODEL_TYPE, backend=["fsdp", "fsdp2"], device=["cuda", "npu"])
class TWGRPOEngine(HeadPassMixin, PackedGroupsMixin, FSDPEngineWithLMHead):
    """FSDPEngineWithLMHead with the head pass and packed groups (verl/workers/engine/fsdp/transformer_impl.py)."""
