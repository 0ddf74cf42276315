"""Sizes of the model that a run trains, from its config.json: no weights are read and nothing is downloaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from omegaconf import DictConfig
from transformers import AutoConfig, Qwen2_5_VLConfig

from verl_twgrpo.training.vision import freeze_vision_tower

# What config.json of these models says (huggingface.co/Qwen), as far as it makes up their sizes.
_VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "window_size": 112}
_KNOWN = {
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "text_config": {
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
            "max_position_embeddings": 128000,
        },
        "vision_config": {**_VISION, "out_hidden_size": 2048},
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "text_config": {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "max_position_embeddings": 128000,
        },
        "vision_config": {**_VISION, "out_hidden_size": 3584},
        "tie_word_embeddings": False,
    },
}


@dataclass(frozen=True)
class ModelSizes:
    """hidden: width of the head's input. vocabulary: columns of the head. context: longest sequence in tokens.

    parameters, trainable: numbers of values, the latter with a gradient. layers: of the language model. folder: the
    checkpoint, or None where only its sizes are known.
    """

    hidden: int
    vocabulary: int
    context: int
    parameters: int
    trainable: int
    layers: int
    folder: Path | None


def model_sizes(model: DictConfig, freeze_vision: bool) -> ModelSizes:
    """Sizes of ``actor_rollout_ref.model``. Raises ``ValueError`` naming the key if they cannot be had here."""
    key = f"actor_rollout_ref.model.path={model.path}"
    folder = local_folder(model.path)
    if folder is None and model.path not in _KNOWN:
        raise ValueError(
            f"{key}: not on this disk, and only {' and '.join(_KNOWN)} are known here; download it, or give a folder"
        )
    from verl.utils.model import get_hf_auto_model_class

    try:
        config = AutoConfig.from_pretrained(folder) if folder else Qwen2_5_VLConfig(**_KNOWN[model.path])
        with torch.device("meta"):
            module = get_hf_auto_model_class(config).from_config(config)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{key}: {str(error).splitlines()[0]}") from error
    head = module.get_output_embeddings()
    if freeze_vision:
        freeze_vision_tower(module)
    if model.lora_rank > 0:
        module = _with_adapters(module, model)
    parameters = list(module.parameters())
    return ModelSizes(
        hidden=head.in_features,
        vocabulary=head.out_features,
        context=config.get_text_config().max_position_embeddings,
        parameters=sum(values.numel() for values in parameters),
        trainable=sum(values.numel() for values in parameters if values.requires_grad),
        layers=config.get_text_config().num_hidden_layers,
        folder=folder,
    )


def local_folder(path: str) -> Path | None:
    """The checkpoint's folder: ``path`` itself, or that of a hub name in the local cache; None if it is not here."""
    folder = Path(os.path.expanduser(path))
    if folder.is_dir():
        return folder
    cached = try_to_load_from_cache(path, "config.json")
    return Path(cached).parent if isinstance(cached, str) else None


def _with_adapters(module: torch.nn.Module, model: DictConfig) -> torch.nn.Module:
    """LoRA as verl puts it in (verl/workers/engine/fsdp/transformer_impl.py, _build_lora_module)."""
    from peft import LoraConfig, get_peft_model

    targets = model.target_modules
    adapters = LoraConfig(
        r=model.lora_rank,
        lora_alpha=model.lora_alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=model.exclude_modules,
    )
    with torch.device("meta"):
        return get_peft_model(module, adapters)
