"""The part of the CPU rollout that runs inside vLLM's worker process."""

from __future__ import annotations

import torch
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension


class CPUWorkerExtension(vLLMColocateWorkerExtension):
    """Receives the actor's weights and lets vLLM reload them.

    vLLM on CPU packs linear weights after loading and drops the originals, so verl's loading in place finds no weight
    loader on the parameters; vLLM's own ``reload_weights`` rebuilds them.
    """

    def update_weights_from_ipc(
        self, peft_config: dict | None = None, base_sync_done: bool = False, use_shm: bool = False
    ) -> None:
        """Replace all weights of the model with those that the trainer sends.

        Raises:
            NotImplementedError: for a LoRA adapter; set ``actor_rollout_ref.model.lora.merge=True``.
        """
        if peft_config:
            raise NotImplementedError(
                "vLLM on CPU cannot take LoRA adapters from verl: set actor_rollout_ref.model.lora.merge=True"
            )
        weights: list[tuple[str, torch.Tensor]] = []

        def collect(bucket: list[tuple[str, torch.Tensor]], is_last: bool) -> None:
            # The bucket is shared memory that is reused, and that cannot be closed while views of it live.
            weights.extend((name, tensor.clone()) for name, tensor in bucket)

        receiver = BucketedWeightReceiver(
            zmq_handle=self._get_zmq_handle(), device=torch.device("cpu"), use_shm=use_shm
        )
        receiver.receive_weights(on_bucket_received=collect)
        self.model_runner.reload_weights(weights_iterator=iter(weights))
