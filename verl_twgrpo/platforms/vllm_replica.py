"""verl's vLLM rollout on CPU: the same server, with a worker extension that can reload CPU weights."""

from __future__ import annotations

from typing import Any

import ray
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica


class CPUvLLMHttpServer(vLLMHttpServer):
    """vLLMHttpServer that loads our worker extension into vLLM's workers."""

    def _init_config(self, config: Any) -> Any:
        config = super()._init_config(config)
        if config.load_format == "dummy":
            # verl's default: random weights until the actor's arrive. vLLM 0.28 on CPU does not replace all of them
            # when it reloads, and the rollout then follows another policy than the actor's.
            config.load_format = "auto"
        return config

    def _get_worker_extension_cls(self) -> str:
        return "verl_twgrpo.platforms.vllm_extension.CPUWorkerExtension"


class CPUvLLMReplica(vLLMReplica):
    """vLLMReplica whose servers are CPUvLLMHttpServer (verl/workers/rollout/vllm_rollout/vllm_async_server.py)."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(CPUvLLMHttpServer)
