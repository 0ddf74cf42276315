"""The group-wise head pass inside the old-log-prob step of one of verl's engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from tensordict import TensorDict
from torch.distributed.tensor import DTensor
from verl.utils import tensordict_utils as tu

from verl_twgrpo.rows import as_list
from verl_twgrpo.training.engines.altered_videos import with_altered_videos
from verl_twgrpo.training.engines.group_pass import GroupPass, Row
from verl_twgrpo.training.engines.options import options_of
from verl_twgrpo.training.views import VIEW_KEY
from verl_twgrpo.training.vision import freeze_vision_tower

if TYPE_CHECKING:
    from verl.workers.engine.fsdp import FSDPEngineWithLMHead as _Engine  # an engine that the mixin may go before
else:
    _Engine = object

# The flag and settings of a weights pass, carried by KVBatchMeta.extra_info to the workers.
PASS_KEY = "tw_grpo_pass"

# Column that says, by number, whose mixture a row is in, where that is not all rows of its prompt.
MIXTURE = "tw_grpo_mixture"

# Positions of the first micro-batch at which the model's own logits are compared with the head's.
CHECKED_POSITIONS = 8

# Settings of transformers' models by which they change logits behind the head: Gemma, Granite, Cohere.
CHANGES_LOGITS = ("final_logit_softcapping", "logits_scaling", "logit_scale")

# Attribute of a model by which verl says which kernels it computes with (verl/models/transformers/monkey_patch.py).
FUSED_KERNELS = "_verl_fused_kernels_backend"


class HeadPassMixin(_Engine):
    """Makes an engine return the group divergence D_t of every response token beside log-probs and entropies.

    Goes before an engine that calls ``prepare_model_inputs``, its module and ``prepare_model_outputs`` in turn for
    each micro-batch, as FSDPEngineWithLMHead and its subclasses do (verl/workers/engine/fsdp/transformer_impl.py).

    In a batch flagged with ``PASS_KEY`` the head is taken out of the model's forward: a hook catches the final hidden
    states, keeps those of response positions and hands the head an empty slice. ``GroupPass`` then computes log-probs,
    entropies and divergence of whole groups with one head GEMM. In a batch flagged with ``VIEW_KEY`` the videos of the
    rows are altered before the model sees them. Any other batch is the engine's own business.
    """

    def __init__(self, model_config: Any, **kwargs: Any) -> None:
        model_config.model_type = "language_model"  # what verl's methods compare with
        self._options = options_of(model_config)
        super().__init__(model_config=model_config, **kwargs)
        self._pass: GroupPass | None = None
        self._micro_batch: TensorDict | None = None
        self._buffers: dict[str, torch.Tensor] = {}
        # the first micro-batch of a process also goes through the model's own head, by one position
        self._head_checked = False
        self._checked_logits_KV: torch.Tensor | None = None
        self.last_pass = {"seconds": 0.0, "vocabulary_size": 0}

    def _build_module(self) -> torch.nn.Module:
        module = super()._build_module()
        if self._options.freeze_vision_tower:
            freeze_vision_tower(module)
        return module

    def forward_backward_batch(self, data: TensorDict, loss_function: Any, forward_only: bool = False) -> Any:
        settings = tu.get_non_tensor_data(data=data, key=PASS_KEY, default=None)
        if not (forward_only and settings):
            return super().forward_backward_batch(data, loss_function, forward_only=forward_only)
        live = _live_lengths(data) > 0
        groups = [group for group, is_live in zip(_mixtures(data), live.tolist(), strict=True) if is_live]
        self._pass = GroupPass(
            groups,
            kind=settings["divergence"],
            temperature=float(data["temperature"]),
            tokens_per_chunk=settings.get("tokens_per_chunk"),
            log_prob_dtype=self._rounding_of_logits(),
            sharing=self._sequence_parallel_group(),
        )
        try:
            with self._hidden_states_from_head():
                output = super().forward_backward_batch(data, loss_function, forward_only=True)
            # Filled in place after they were handed to verl, and copied by it only now.
            self._pass.finish()
            self.last_pass = {"seconds": self._pass.seconds, "vocabulary_size": self._pass.vocabulary_size}
        finally:
            self._pass, self._micro_batch, self._buffers = None, None, {}
        return output

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict, dict]:
        if self._pass is not None:
            self._micro_batch = micro_batch
        view = tu.get_non_tensor_data(data=micro_batch, key=VIEW_KEY, default=None)
        if view:
            micro_batch = with_altered_videos(micro_batch, view, self.model_config.processor)
        return super().prepare_model_inputs(micro_batch)

    def prepare_model_outputs(
        self, output: Any, output_args: dict, micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, torch.Tensor]:
        if self._pass is None:
            return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        if self._checked_logits_KV is not None:
            check_head(self.module, self._checked_logits_KV, output.logits.detach()[0])
            self._head_checked, self._checked_logits_KV = True, None
        offsets = micro_batch["input_ids"].offsets()
        return {name: torch.nested.nested_tensor_from_jagged(buffer, offsets) for name, buffer in self._buffers.items()}

    def _sequence_parallel_group(self) -> Any:
        """The ranks over which Ulysses cuts the rows that they share; None without it."""
        return self.ulysses_parallel_group if getattr(self, "use_ulysses_sp", False) else None

    def _rounding_of_logits(self) -> torch.dtype | None:
        """The type to which the update rounds its logits before the log-softmax; None if it keeps them in float32."""
        # verl's triton kernel accumulates and keeps float32 (verl/utils/kernel/kernels.py)
        if getattr(self.module, FUSED_KERNELS, None) == "triton" or self._autocast_dtype == torch.float32:
            return None
        return self._autocast_dtype

    @contextmanager
    def _hidden_states_from_head(self) -> Iterator[None]:
        head = self.module.get_output_embeddings()
        hook = head.register_forward_pre_hook(self._take_hidden_states)
        try:
            with _logits_from_head(self.module):
                yield
        finally:
            hook.remove()

    def _take_hidden_states(self, head: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        """Forward pre-hook of the head: hidden states as ``_response_states`` takes them."""
        hidden_BSH = _whole(args[0], self._sequence_parallel_group())
        batch, running = self._micro_batch, self._pass
        assert batch is not None and running is not None, "the hook is there in a weights pass only"
        input_ids = batch["input_ids"]
        tokens, ends = input_ids.values(), input_ids.offsets()[1:].tolist()
        responses = batch["responses"].offsets().diff().tolist()
        names = ("log_probs", "entropy", "divergence")
        self._buffers = {name: torch.zeros(len(tokens), device=hidden_BSH.device) for name in names}
        # Within the head's call FSDP has gathered its weight: no further unsharding is needed.
        head_VH, bias_V = _plain_weight(head), getattr(head, "bias", None)
        states = _response_states(hidden_BSH, input_ids.offsets().tolist(), responses)
        checked_KH = hidden_BSH[0, :0]
        if not self._head_checked:
            checked_KH = torch.cat([state[:1] for state in states])[:CHECKED_POSITIONS]
            self._checked_logits_KV = torch.nn.functional.linear(checked_KH, head_VH, bias_V)
        # the model's own rounding is in the hidden states; the pass chooses its precision itself
        with torch.autocast(device_type=hidden_BSH.device.type, enabled=False):
            for group, length, response, end, hidden_RH in zip(
                _mixtures(batch), _live_lengths(batch).tolist(), responses, ends, states, strict=True
            ):
                if length == 0:
                    continue
                first = end - response  # of the response; the position before it predicts its first token
                predicts = slice(first - 1, first - 1 + length)
                views = {f"{name}_L": buffer[predicts] for name, buffer in self._buffers.items()}
                # a copy, for the view would keep the whole micro-batch's hidden states
                made = Row(hidden_LH=hidden_RH[:length].clone(), targets_L=tokens[first : first + length], **views)
                running.add(group, made, head_VH, bias_V)
        return (checked_KH[None],)


def _whole(hidden_BSH: torch.Tensor, sharing: Any) -> torch.Tensor:
    """Hidden states of all positions, where each of the ranks that share the rows has a slice of them (B = 1)."""
    if sharing is None:
        return hidden_BSH
    mine_SH = hidden_BSH[0].contiguous()
    whole_SH = mine_SH.new_empty(len(mine_SH) * torch.distributed.get_world_size(sharing), mine_SH.shape[1])
    torch.distributed.all_gather_into_tensor(whole_SH, mine_SH, group=sharing)
    return whole_SH[None]


def _mixtures(data: TensorDict) -> list[str]:
    """The group of each row: its prompt's, or what the trainer says where a rollout has several outputs."""
    if MIXTURE in data:
        return [str(number) for number in data[MIXTURE].tolist()]
    return as_list(data["uid"])


def _response_states(hidden_BSH: torch.Tensor, offsets: list[int], responses: list[int]) -> list[torch.Tensor]:
    """By row, the hidden states [R, H] of the positions that predict its R response tokens.

    Args:
        hidden_BSH: of response positions alone [1, sum of R, H] (packed groups), of all tokens without padding
            [1, S, H] with S at least the last offset, or of padded rows [B, S, H].
        offsets: where rows begin and end when laid end to end.
        responses: R of each row.
    """
    starts, ends = offsets[:-1], offsets[1:]
    if hidden_BSH.shape[0] == 1 and hidden_BSH.shape[1] == sum(responses):
        return list(hidden_BSH[0].split(responses))
    if hidden_BSH.shape[0] == 1 and hidden_BSH.shape[1] >= ends[-1]:
        return [hidden_BSH[0, end - length - 1 : end - 1] for end, length in zip(ends, responses, strict=True)]
    return [
        hidden_BSH[row, end - start - length - 1 : end - start - 1]
        for row, (start, end, length) in enumerate(zip(starts, ends, responses, strict=True))
    ]


def check_head(model: torch.nn.Module, expected_KV: torch.Tensor, logits_KV: torch.Tensor) -> None:
    """Compare what the head gives with what the model made of it.

    Args:
        model: for the message.
        expected_KV: hidden states times the head at some positions.
        logits_KV: the model's logits there.

    Raises:
        ValueError: the model changes its logits behind the head, so that those of the head pass are not its own.
    """
    same_shape = expected_KV.shape == logits_KV.shape
    gap = (expected_KV.float() - logits_KV.float()).abs().max().item() if same_shape else float("inf")
    # one rounding of the logits' type; the same GEMM gave both
    if gap <= torch.finfo(logits_KV.dtype).eps * max(expected_KV.abs().max().item(), 1.0):
        return
    config = model.config.get_text_config()
    found = [f"{name}={getattr(config, name)}" for name in CHANGES_LOGITS if getattr(config, name, None)]
    raise ValueError(
        f"tw_grpo: {config.model_type} changes its logits behind the head"
        + (f" ({', '.join(found)})" if found else "")
        + f": they are up to {gap:.3g} away from hidden states times head, from which the weights pass takes old "
        "log-probs and weights. Train this model with algorithm=grpo_token, which has no weights pass, or take "
        "another model"
    )


def _live_lengths(data: TensorDict) -> torch.Tensor:
    """Response tokens of each row, int64; 0 for verl's synthetic padding rows (nothing in their response mask)."""
    mask = data["response_mask"]
    live = torch.stack([row.any() for row in mask.unbind()])
    return mask.offsets().diff() * live


@contextmanager
def _logits_from_head(module: torch.nn.Module) -> Iterator[None]:
    """The model's head gives logits meanwhile, whatever kernels its engine wants."""
    # the model itself, where LoRA has wrapped it
    fused = [model for model in module.modules() if FUSED_KERNELS in vars(model)]
    wanted = [vars(model)[FUSED_KERNELS] for model in fused]
    for model in fused:
        setattr(model, FUSED_KERNELS, None)
    try:
        yield
    finally:
        for model, kernels in zip(fused, wanted, strict=True):
            setattr(model, FUSED_KERNELS, kernels)


def _plain_weight(head: torch.nn.Module) -> torch.Tensor:
    weight = getattr(head, "weight", None)
    if weight is None or isinstance(weight, DTensor) or hasattr(head, "lora_A"):
        raise ValueError(
            f"tw_grpo: the language-model head ({type(head).__name__}) is not a plain linear layer here; keep LoRA and "
            "tensor parallelism off the head (actor_rollout_ref.model.exclude_modules)"
        )
    return weight
