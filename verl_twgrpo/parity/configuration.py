"""verl's own configuration for one prompt and one response, on the device that is here."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig

# tokens of prompt and response: room for more does not fit small GPUs' key-value caches
MAX_LENGTH = 32768


def compose_configuration(model: str, max_tokens: int) -> DictConfig:
    """verl's trainer configuration for ``model``: float32 and sdpa on a CPU; elsewhere bfloat16, as training has it.

    Args:
        model: folder of a Hugging Face checkpoint, or a hub name.
        max_tokens: length of the sampled response.

    Raises:
        ValueError: if the model has too few positions for that.
    """
    from hydra import compose, initialize_config_module
    from transformers import AutoConfig
    from verl.workers.rollout.utils import get_max_position_embeddings

    from verl_twgrpo.platforms import cpu

    longest = min(get_max_position_embeddings(AutoConfig.from_pretrained(model)), MAX_LENGTH)
    if longest <= max_tokens:
        raise ValueError(f"--max-tokens {max_tokens}: {model} takes {longest} tokens, prompt and response together")
    on_cpu = cpu.is_selected()
    flash = not on_cpu and find_spec("flash_attn") is not None
    dtype = "float32" if on_cpu else "bfloat16"
    settings = {
        "actor_rollout_ref.model.path": model,
        "actor_rollout_ref.model.enable_gradient_checkpointing": False,
        "actor_rollout_ref.model.use_remove_padding": flash,
        "+actor_rollout_ref.model.override_config.attn_implementation": "flash_attention_2" if flash else "sdpa",
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.dtype": dtype,
        "actor_rollout_ref.rollout.load_format": "auto",
        "actor_rollout_ref.rollout.prompt_length": longest - max_tokens,
        "actor_rollout_ref.rollout.response_length": max_tokens,
        "actor_rollout_ref.rollout.max_model_len": longest,
        "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
        "actor_rollout_ref.rollout.calculate_log_probs": True,
        "actor_rollout_ref.rollout.enforce_eager": on_cpu,
        "data.max_response_length": max_tokens,
        "data.filter_overlong_prompts": False,
        "trainer.device": "cpu" if on_cpu else "cuda",
    }
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=[f"{key}={_quoted(value)}" for key, value in settings.items()])


def _quoted(value: Any) -> str:
    return "'" + value.replace("'", "\\'") + "'" if isinstance(value, str) else str(value).lower()
