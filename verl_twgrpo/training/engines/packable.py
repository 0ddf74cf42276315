"""What packed groups can run on, as far as a model's configuration says."""

from __future__ import annotations

from typing import Any

# Models whose every layer attends by transformers' attention functions alone, as the tests show.
MODELS = ("llama", "qwen2", "qwen2_vl", "qwen2_5_vl", "qwen3", "qwen3_vl")


def why_not_model(model_config: Any) -> str | None:
    """What stands against packing this model (a transformers configuration), as a clause; None where nothing does."""
    if model_config.model_type not in MODELS:
        return f"{model_config.model_type} is not among the models that were tried ({', '.join(MODELS)})"
    text = model_config.get_text_config()
    if set(getattr(text, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        return "the model has layers with a sliding window"
    return None
