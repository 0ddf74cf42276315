"""Bytes that a run needs, by formula."""

from __future__ import annotations

from collections.abc import Sequence

from verl_twgrpo.algorithm.head_pass import TOKENS_PER_CHUNK

from .model import ModelSizes

BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2}


def weights_pass_bytes(device: str, tokens_per_chunk: int | None, n: int, vocabulary: int) -> int:
    """Logits and two elementwise buffers of the weights pass (algorithm/head_pass.py): 1.5 x tokens x V x 4 bytes."""
    tokens = tokens_per_chunk or TOKENS_PER_CHUNK.get(device, TOKENS_PER_CHUNK["cuda"])
    return int(1.5 * max(tokens, 4 * n) * vocabulary * 4)


def waiting_bytes(n: int, response_length: int, hidden: int) -> int:
    """Hidden states of one group in bfloat16, from its first row until its last (``engines/group_pass.py``)."""
    return 2 * n * response_length * hidden


def logit_bytes(positions: int, vocabulary: int) -> int:
    """Logits of the update at so many positions, float32."""
    return 4 * positions * vocabulary


def mask_bytes(prompt: int, responses: Sequence[int]) -> int:
    """Masks by which a packed group attends where flash-attn is not there (training/engines/packed_attention.py)."""
    return sum(length * (prompt + length) for length in set(responses))


def group_tokens(prompt: int, response: int, n: int) -> tuple[int, int]:
    """Tokens of a group of n responses behind one prompt (packed groups), and behind one prompt each."""
    return prompt + n * response, n * (prompt + response)


def training_state_bytes(sizes: ModelSizes, dtype: str | None) -> dict[str, int]:
    """Parameters, gradients and Adam's two moments over all ranks; frozen parameters have but the first.

    ``dtype`` is ``fsdp_config.model_dtype``; None is float32, as in verl.
    """
    width = BYTES[dtype or "fp32"]
    return {
        "parameters": sizes.parameters * width,
        "gradients": sizes.trainable * width,
        "optimizer": 2 * sizes.trainable * width,
    }


def checkpoint_bytes(sizes: ModelSizes, dtype: str | None, contents: list[str]) -> int:
    """One checkpoint: shards, optimizer, and the Hugging Face copy, all in the dtype of the trained parameters."""
    state = training_state_bytes(sizes, dtype)
    parts = {"model": state["parameters"], "optimizer": state["optimizer"], "hf_model": state["parameters"]}
    return sum(parts.get(name, 0) for name in contents)


def pixel_bytes(rows: int, tokens: int, patch_size: int) -> int:
    """The processor's pixel values of ``rows`` rows, float32: four patches per token, two frames, three colours.

    verl keeps them in TransferQueue, on the host, for every response of a batch (trainer/ppo/v1/agent_loop_tq.py).
    """
    return rows * tokens * 4 * (2 * 3 * patch_size**2) * 4
