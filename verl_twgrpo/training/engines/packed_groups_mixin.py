"""One prompt, one pass per group: the responses to a prompt run behind one copy of it, in every pass of an engine."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_name
from verl.utils.model import extract_multi_modal_inputs

from verl_twgrpo.training.engines.packable import why_not_model
from verl_twgrpo.training.engines.packed_attention import (
    PACKED_ATTENTION,
    current_layout,
    packed_attention,
    set_layout,
)
from verl_twgrpo.training.engines.packing import (
    PackedRows,
    micro_batches,
    most_tokens,
    pack,
    packed_tokens,
    split_to,
)
from verl_twgrpo.training.engines.shared_prompts import row_lengths, shared_prompts

if TYPE_CHECKING:
    from verl.workers.engine.fsdp import FSDPEngineWithLMHead as _Engine  # an engine that the mixin may go before
else:
    _Engine = object

logger = logging.getLogger(__name__)

# The setting algorithm.packed_groups ("auto" or "true"), carried by KVBatchMeta.extra_info to the workers.
PACKED_KEY = "tw_grpo_packed_groups"

# Column of a batch: rows of one number share a prompt.
_PROMPT_COLUMN = "tw_grpo_prompt"
# Key of output_args: the micro-batch's PackedRows.
_PACKED = "tw_grpo_packed_rows"


class PackedGroupsMixin(_Engine):
    """Makes an engine run a batch flagged with ``PACKED_KEY`` in packed rows: prompt, response 1, ..., response G.

    Same log-probs, entropies, losses and gradients; the prompt, and with it the images and videos, runs once per group
    and micro-batch, and the head over response positions only. Goes before an engine as ``HeadPassMixin`` does, and
    behind that. Results come back in verl's layout, so that no loss notices.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._packing = False
        self._packed: PackedRows | None = None
        self._told: set[str] = set()
        self.packing_counts = {"tokens": 0, "tokens_unpacked": 0}

    def forward_backward_batch(self, data: TensorDict, loss_function: Any, forward_only: bool = False) -> Any:
        wanted = tu.get_non_tensor_data(data=data, key=PACKED_KEY, default=None)
        run = super().forward_backward_batch
        reason = self._why_not_packed(data, run.__func__.__globals__) if wanted else None
        if reason and wanted != "auto":
            raise ValueError(f"algorithm.packed_groups=true: {reason}; set it to auto or false")
        if reason and reason not in self._told:
            self._told.add(reason)
            logger.warning("algorithm.packed_groups=auto: groups run unpacked: %s", reason)
        if not wanted or reason:
            return run(data, loss_function, forward_only=forward_only)
        data = data.copy()
        data[_PROMPT_COLUMN] = torch.tensor(shared_prompts(data))
        with ExitStack() as stack:
            stack.enter_context(self._packed_attention())
            stack.enter_context(self._response_positions_only())
            # verl looks the function up in the module of its engine; there is no method to override
            partition = self._partition(data)
            # under this flag verl puts results back into the order of the rows
            tu.assign_non_tensor(data, use_dynamic_bsz=True)

            def split(data: TensorDict, **_: Any) -> tuple[list[TensorDict], list[list[int]]]:
                # not before: by now verl has put into the data what the loss reads
                return [tu.index_select_tensor_dict(data, rows) for rows in partition], partition

            stack.enter_context(_replaced(run.__func__.__globals__, "prepare_micro_batches", split))
            return run(data, loss_function, forward_only=forward_only)

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict, dict]:
        if not self._packing:
            return super().prepare_model_inputs(micro_batch)
        input_ids, positions = micro_batch["input_ids"], micro_batch["position_ids"].values()
        packed = pack(micro_batch[_PROMPT_COLUMN].tolist(), row_lengths(micro_batch), input_ids.device)
        self._packed = packed
        set_layout(packed.layout)
        media = micro_batch.get("multi_modal_inputs", [])
        model_inputs = {
            "input_ids": input_ids.values()[packed.token_S][None],
            "attention_mask": None,
            "position_ids": positions[..., packed.token_S].unsqueeze(-2),
            **extract_multi_modal_inputs(media, indices=packed.first_rows),
        }
        temperature = micro_batch["temperature"]
        if tu.get_non_tensor_data(data=micro_batch, key="use_fused_kernels", default=False):
            # the head, to which only response positions come, computes log-probs of these targets
            targets_1N = input_ids.values()[packed.target_N][None]
            model_inputs |= {"temperature": temperature, "return_dict": True, "shift_labels": targets_1N}
        is_one = not isinstance(temperature, torch.Tensor) and float(temperature) == 1.0
        if not isinstance(temperature, torch.Tensor):
            temperature = torch.full((len(packed.lengths.responses),), temperature, device=input_ids.device)
        responses = torch.tensor(packed.lengths.responses, device=input_ids.device)
        # what the removed-padding branch of prepare_model_outputs reads
        output_args = {
            _PACKED: packed,
            "input_ids_rmpad_rolled": input_ids.values()[packed.target_N],
            "temperature_rmpad": temperature.float().repeat_interleave(responses),
            "temperature_is_one": is_one,
            "pad_size": 0,
        }
        return model_inputs, output_args

    def prepare_model_outputs(
        self, output: Any, output_args: dict, micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, torch.Tensor]:
        packed: PackedRows | None = output_args.get(_PACKED)
        if packed is None:
            return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        # as if a row were its response: verl's own code then makes log-probs, entropies and whatever else is asked for
        responses = micro_batch.copy()
        responses["input_ids"] = micro_batch["responses"]
        tu.assign_non_tensor(responses, use_remove_padding=True)
        results = super().prepare_model_outputs(output, output_args, responses, logits_processor_func)
        offsets = micro_batch["input_ids"].offsets()
        tokens = len(micro_batch["input_ids"].values())
        return {
            name: torch.nested.nested_tensor_from_jagged(
                torch.zeros(tokens, dtype=values.dtype, device=values.device).index_copy(
                    0, packed.target_N - 1, values.values()
                ),
                offsets,
            )
            for name, values in results.items()
        }

    def take_packing_counts(self) -> dict[str, int]:
        """Tokens that ran through the model since the last call, and those that would have run unpacked."""
        counts, self.packing_counts = self.packing_counts, {"tokens": 0, "tokens_unpacked": 0}
        return counts

    def _why_not_packed(self, data: TensorDict, engine_globals: MutableMapping[str, Any]) -> str | None:
        """A sentence on what stands against packing this batch; None where nothing does."""
        reason = why_not_model(self.module.config)
        if reason:
            return reason
        if getattr(self, "ulysses_sequence_parallel_size", 1) > 1:
            return "Ulysses cuts rows over ranks"
        if tu.get_non_tensor_data(data=data, key="distillation_use_topk", default=False):
            return "top-k distillation reads logits at prompt positions"
        if getattr(self, "pad_to_length", False):
            return "pad_to_length wants rows of a fixed length"
        if "uid" not in data or "prepare_micro_batches" not in engine_globals:
            return f"{type(self).__name__} does not say which rows are a group"
        return None

    def _partition(self, data: TensorDict) -> list[list[int]]:
        """The rows of each micro-batch, by its tokens, and as many micro-batches on every rank."""
        numbers, lengths = data[_PROMPT_COLUMN].tolist(), row_lengths(data)
        if tu.get_non_tensor_data(data=data, key="use_dynamic_bsz", default=True):
            tokens = data["max_token_len_per_gpu"]
        else:
            tokens = most_tokens(lengths, rows=data["micro_batch_size_per_gpu"])
        batches = micro_batches(numbers, lengths, tokens)
        count = torch.tensor(len(batches), device=get_device_name())
        torch.distributed.all_reduce(count, torch.distributed.ReduceOp.MAX, group=self.get_data_parallel_group())
        batches = split_to(int(count), batches, numbers, lengths)
        self.packing_counts["tokens"] += sum(packed_tokens(rows, numbers, lengths) for rows in batches)
        self.packing_counts["tokens_unpacked"] += sum(lengths.prompts) + sum(lengths.responses)
        return batches

    @contextmanager
    def _packed_attention(self) -> Iterator[None]:
        """Every attention layer of the text model calls ``packed_attention``, in forward and backward."""
        configs = {
            id(module.config): module.config
            for module in self.module.modules()
            if hasattr(module, "layer_idx") and hasattr(module, "config")
        }
        before = {key: config._attn_implementation for key, config in configs.items()}
        for config in configs.values():
            config._attn_implementation = PACKED_ATTENTION
        self._packing = True
        try:
            with ExitStack() as stack:
                patched = sys.modules.get("verl.models.transformers.qwen2_vl")
                if patched is not None:
                    original = patched._custom_flash_attention_forward
                    stack.enter_context(
                        _replaced(vars(patched), "_custom_flash_attention_forward", _in_verls_signature(original))
                    )
                yield
        finally:
            self._packing, self._packed = False, None
            set_layout(None)
            for key, config in configs.items():
                config._attn_implementation = before[key]

    @contextmanager
    def _response_positions_only(self) -> Iterator[None]:
        """The head sees [1, N, H], the positions that predict response tokens, row after row."""

        def select(head: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
            assert self._packed is not None
            return (args[0][:, self._packed.predicts_N],)

        # before any other hook on the head
        hook = self.module.get_output_embeddings().register_forward_pre_hook(select, prepend=True)
        try:
            yield
        finally:
            hook.remove()


def _in_verls_signature(original: Any) -> Any:
    """``packed_attention`` in the place of the attention of verl's patch of Qwen2-VL and Qwen2.5-VL for packed rows.

    verl calls it with [1, S, heads, D], keys and values repeated to the heads of the queries
    (verl/models/transformers/qwen2_vl.py: qwen2_vl_attn_forward).
    """

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any):
        if current_layout() is None:
            return original(query, key, value, *args, **kwargs)
        query, key, value = (states.transpose(1, 2) for states in (query, key, value))
        dropout = kwargs.get("dropout", 0.0)
        return packed_attention(_NO_SHARED_HEADS, query, key, value, None, dropout=dropout)[0]

    return attention


_NO_SHARED_HEADS = torch.nn.Module()


@contextmanager
def _replaced(names: MutableMapping[str, Any], name: str, value: Any) -> Iterator[None]:
    original = names[name]
    names[name] = value
    try:
        yield
    finally:
        names[name] = original
