"""The rollout's side: verl's vLLM server without Ray, with its engine in this process, and what it made of a prompt."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import torch

# before vLLM is imported: the engine shares this process, so that what it computes can be looked at
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

from verl.workers.config import HFModelConfig, RolloutConfig
from verl.workers.rollout.replica import TokenOutput
from verl.workers.rollout.utils import get_vision_placeholder_token_ids
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer

from verl_twgrpo.platforms import cpu


class LocalServer(vLLMHttpServer):
    """vLLMHttpServer whose engine is in this process (verl/workers/rollout/vllm_rollout/vllm_async_server.py).

    ``generate`` is verl's: from the prompt and its videos to the request, and from the output to its log-probs. After
    it, ``prompt_ids`` are the tokens that the engine saw, and ``positions_3T`` their M-RoPE positions (None where the
    model has none), followed by ``delta``: a response token's position is its place plus delta.
    """

    def __init__(self, config: RolloutConfig, model_config: HFModelConfig) -> None:
        # verl's __init__ wants Ray, ports and a profiler; this is what its generate() reads
        self.config, self.model_config = config, model_config
        self._disaggregation_role = "null"
        self._submission_paused = False
        self._admitting = 0
        self.replica_rank = 0
        self.global_steps = None
        self.engine = _Engine(self)
        self.prompt_ids: list[int] = []
        self.positions_3T: torch.Tensor | None = None
        self.delta = 0


class LocalClient:
    """What an agent loop asks for tokens (verl/workers/rollout/llm_server.py, LLMServerClient)."""

    server: LocalServer

    async def generate(self, request_id: str, *, mm_processor_output: Any = None, **request: Any) -> TokenOutput:
        """One response; ``mm_processor_output`` is for SGLang only."""
        return await self.server.generate(request_id=request_id, **request)


class _Engine:
    """As much of vLLM's AsyncLLM as ``vLLMHttpServer.generate`` uses; started by the first prompt, in its size."""

    def __init__(self, server: LocalServer) -> None:
        self._server = server

    async def generate(
        self, prompt: dict[str, Any], sampling_params: Any, lora_request: Any = None, **_: Any
    ) -> AsyncIterator[Any]:
        server = self._server
        pictures = {kind: len(prompt["multi_modal_data"].get(kind) or ()) for kind in ("image", "video")}
        llm = self._start(pictures)
        found: list[tuple[torch.Tensor, int]] = []
        llm.apply_model(lambda model: _record_positions(model, found))
        (output,) = llm.generate([prompt], sampling_params, use_tqdm=False)
        server.prompt_ids = list(output.prompt_token_ids)
        if found:
            server.positions_3T, server.delta = found[0][0].cpu(), int(found[0][1])
        yield output

    def _start(self, pictures: dict[str, int]) -> Any:
        from vllm import LLM

        server = self._server
        config, model_config = server.config, server.model_config
        extension = "verl.workers.rollout.vllm_rollout.utils.vLLMColocateWorkerExtension"
        settings: dict[str, Any] = {}
        if cpu.is_selected():
            extension = "verl_twgrpo.platforms.vllm_extension.CPUWorkerExtension"
        else:
            settings["gpu_memory_utilization"] = config.gpu_memory_utilization
        if model_config.processor is not None:
            settings["limit_mm_per_prompt"] = pictures
        llm = LLM(
            model_config.local_path,
            dtype=config.dtype,
            load_format=config.load_format,
            trust_remote_code=model_config.trust_remote_code,
            max_model_len=config.max_model_len,
            max_num_batched_tokens=max(config.max_model_len, config.max_num_batched_tokens),
            max_num_seqs=4,
            logprobs_mode=config.logprobs_mode,
            enforce_eager=config.enforce_eager,
            seed=config.seed,
            worker_extension_cls=extension,
            **settings,
        )
        banned = get_vision_placeholder_token_ids(model_config.processor)
        patched = {"vocab_size": len(model_config.tokenizer), "banned_token_ids": banned}
        llm.collective_rpc("monkey_patch_model", kwargs=patched)
        return llm


def _record_positions(model: Any, found: list[tuple[torch.Tensor, int]]) -> None:
    """Keep what the model's ``get_mrope_input_positions`` returns; a model without M-RoPE has no such method."""
    stock = getattr(model, "get_mrope_input_positions", None)
    if stock is None:
        return

    def recorded(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, int]:
        found.append(stock(*args, **kwargs))
        return found[-1]

    model.get_mrope_input_positions = recorded
