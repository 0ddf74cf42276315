"""A Qwen2.5-VL of about a million parameters with its processor, as a checkpoint folder that verl and vLLM load."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from verl_twgrpo.mini_clevrer.model.tokenizer import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START, build_tokenizer

# vLLM's attention on CPU wants heads of 32 (16 are refused); both towers share these sizes.
WIDTH, HEADS, MLP = 96, 3, 192
TEXT_LAYERS, VISION_LAYERS = 3, 2
# How the 16 frequencies of a head are shared by time, height and width.
MROPE_SECTION = (4, 6, 6)
INITIAL_STD = 0.05
PATCH, PATCH_FRAMES, MERGE = 14, 2, 2
# As released. The videos have four frames per second (world/render.py), so each pair of frames has a time of its own.
TOKENS_PER_SECOND = 2
# The checkpoint takes pictures of one to sixteen visual tokens as they are.
TOKEN_PIXELS = (PATCH * MERGE) ** 2


def build_processor(phrases: Sequence[str] = ()) -> Qwen2_5_VLProcessor:
    """Tokenizer, image and video processor, in the sizes of the model; ``phrases`` are one token each, too."""

    def sizes() -> dict:
        return {
            "size": {"shortest_edge": TOKEN_PIXELS, "longest_edge": 16 * TOKEN_PIXELS},
            "patch_size": PATCH,
            "temporal_patch_size": PATCH_FRAMES,
            "merge_size": MERGE,
        }

    tokenizer = build_tokenizer(phrases)
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes()),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**sizes()),
        chat_template=tokenizer.chat_template,
    )


def build_model(processor: Qwen2_5_VLProcessor, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """The model in float32 with random weights."""
    tokenizer = processor.tokenizer
    token = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": MLP,
            "num_hidden_layers": TEXT_LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "max_position_embeddings": 1024,
            "rms_norm_eps": 1e-6,
            "initializer_range": INITIAL_STD,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": list(MROPE_SECTION)},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": VISION_LAYERS,
            "hidden_size": WIDTH,
            "intermediate_size": MLP,
            "num_heads": HEADS,
            "out_hidden_size": WIDTH,
            "patch_size": PATCH,
            "temporal_patch_size": PATCH_FRAMES,
            "spatial_merge_size": MERGE,
            "tokens_per_second": TOKENS_PER_SECOND,
            "fullatt_block_indexes": list(range(VISION_LAYERS)),
            "initializer_range": INITIAL_STD,
        },
        image_token_id=token(IMAGE_PAD),
        video_token_id=token(VIDEO_PAD),
        vision_start_token_id=token(VISION_START),
        vision_end_token_id=token(VISION_END),
        tie_word_embeddings=False,
        dtype="float32",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return model


def write_checkpoint(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, folder: str | Path
) -> Path:
    """Write weights (safetensors), configuration, tokenizer and processors; the folder appears whole or not at all.

    A folder that is there already is replaced.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as part:
        whole = Path(part) / folder.name
        model.save_pretrained(whole)
        processor.save_pretrained(whole)
        if folder.exists():
            shutil.rmtree(folder)
        whole.rename(folder)
    return folder
