"""The actor's side: verl's agent loop makes the row, and verl's FSDP engine reads it."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from math import exp
from typing import Any

import torch
from omegaconf import DictConfig
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, AgentLoopWorker
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.rollout.utils import get_vision_placeholder_token_ids
from verl.workers.utils.padding import response_from_nested


@dataclass
class ActorRow:
    """One row as training would have it.

    positions: [T] of a text model, [4, T] (place in the text, then time, height, width) of one with M-RoPE.
    multi_modal_inputs: pixels and grids. rollout_log_probs: of the response, as vLLM gave them.
    videos: the frames and metadata that verl handed to both sides.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    rollout_log_probs: list[float]
    positions: torch.Tensor
    multi_modal_inputs: dict[str, Any]
    videos: list[tuple[torch.Tensor, dict[str, Any]]]

    @property
    def input_ids_T(self) -> torch.Tensor:
        return torch.tensor(self.prompt_ids + self.response_ids)


class OneRow(RLHFDataset):
    """verl's dataset over a row that is in memory."""

    def __init__(self, row: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        self._row = row
        super().__init__([], *args, **kwargs)

    def _download(self, use_origin_parquet: bool = False) -> None:
        """There is no file."""

    def _read_files_and_tokenize(self) -> None:
        self.dataframe = [self._row]


class LocalWorker(AgentLoopWorker):
    """AgentLoopWorker without a queue: it hands out what verl's TransferQueue worker would put into it."""

    async def _agent_loop_postprocess(self, output: AgentLoopOutput, validate: bool, **kwargs: Any) -> ActorRow:
        # as AgentLoopWorkerTQ does it (verl/trainer/ppo/v1/agent_loop_tq.py)
        input_ids = torch.tensor(output.prompt_ids + output.response_ids, dtype=torch.int64)
        inputs = self._compute_multi_modal_inputs(output, input_ids)
        positions = self._compute_position_ids(input_ids[None], torch.ones_like(input_ids)[None], inputs)[0]
        return ActorRow(
            prompt_ids=list(output.prompt_ids),
            response_ids=list(output.response_ids),
            rollout_log_probs=list(output.response_logprobs or []),
            positions=positions,
            multi_modal_inputs=inputs,
            videos=list((output.multi_modal_data or {}).get("videos") or []),
        )

    def run(self, row: dict[str, Any]) -> ActorRow:
        """One response to one row of a parquet file, sampled as a rollout is."""
        sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}
        dataset = OneRow(row, self.tokenizer, self.config.data, self.processor)
        trajectory = {"step": 0, "sample_index": 0, "rollout_n": 0, "validate": False}
        fields = {key: value for key, value in dataset[0].items() if key != "agent_name"}
        loop = self._run_agent_loop(sampling, trajectory, agent_name="single_turn_agent", trace=False, **fields)
        return asyncio.get_event_loop().run_until_complete(loop)


@dataclass
class ActorLogProbs:
    """Of the response's tokens.

    sampled: among the tokens that the rollout may sample: verl masks those that stand for pixels
    (verl/workers/rollout/utils.py, get_vision_placeholder_token_ids). plain: among all, as the actor trains.
    """

    sampled: list[float]
    plain: list[float]

    @property
    def never_sampled(self) -> float:
        """Mean probability of the tokens that the rollout never samples."""
        return sum(1 - exp(plain - ours) for plain, ours in zip(self.plain, self.sampled, strict=True)) / len(
            self.plain
        )


def actor_log_probs(config: DictConfig, model_config: Any, row: ActorRow) -> ActorLogProbs:
    """verl's FSDP engine over the row: one rank, no gradient, temperature 1."""
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import FSDPEngineConfig
    from verl.workers.engine.fsdp import FSDPEngineWithLMHead

    _process_group()
    dtype = {"float32": "fp32", "bfloat16": "bf16"}[config.actor_rollout_ref.rollout.dtype]
    engine = FSDPEngineWithLMHead(
        model_config=model_config,
        engine_config=FSDPEngineConfig(
            strategy="fsdp2",
            forward_only=True,
            use_torch_compile=False,
            model_dtype=dtype,
            mixed_precision={"param_dtype": dtype, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
            use_dynamic_bsz=False,
        ),
        optimizer_config=None,
        checkpoint_config=CheckpointConfig(),
    )
    engine.initialize()

    def infer() -> list[float]:
        data = as_batch(row, use_remove_padding=model_config.use_remove_padding)
        with engine.eval_mode():
            output = engine.infer_batch(data)["model_output"]
        return response_from_nested(output["log_probs"], data["response_mask"]).unbind()[0].float().tolist()

    plain = infer()
    banned = get_vision_placeholder_token_ids(model_config.processor)
    if not banned:
        return ActorLogProbs(plain, plain)

    def mask(module: torch.nn.Module, args: Any, output: Any) -> Any:
        output.logits = output.logits.index_fill(-1, torch.tensor(banned, device=output.logits.device), -torch.inf)
        return output

    hook = engine.module.register_forward_hook(mask)
    try:
        return ActorLogProbs(infer(), plain)
    finally:
        hook.remove()


def as_batch(row: ActorRow, use_remove_padding: bool) -> Any:
    """The row as a batch of one, as verl's workers take it: a TensorDict of jagged tensors."""
    mask = torch.ones(len(row.response_ids), dtype=torch.int64)
    fields = {
        "prompts": torch.tensor(row.prompt_ids),
        "responses": torch.tensor(row.response_ids),
        "input_ids": row.input_ids_T,
        "response_mask": mask,
        "loss_mask": mask,
    }
    batch = {name: torch.nested.as_nested_tensor([value], layout=torch.jagged) for name, value in fields.items()}
    offsets = torch.tensor([0, len(row.input_ids_T)])
    ragged = {"jagged_dim": 2} if row.positions.dim() == 2 else {}
    batch["position_ids"] = torch.nested.nested_tensor_from_jagged(row.positions, offsets, **ragged)
    data = tu.get_tensordict({**batch, "multi_modal_inputs": [row.multi_modal_inputs]})
    settings = {"temperature": 1.0, "calculate_entropy": False, "compute_loss": False, "use_dynamic_bsz": False}
    tu.assign_non_tensor(data, micro_batch_size_per_gpu=1, use_remove_padding=use_remove_padding, **settings)
    return data


def _process_group() -> None:
    """FSDP wants a process group; vLLM's engine, in this process, has usually made one."""
    if torch.distributed.is_initialized():
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "cpu:gloo", rank=0, world_size=1)
