"""``verl-twgrpo demo answer``: one question of a parquet file, its video and all, answered by a checkpoint in vLLM."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verl_twgrpo.data.parquet import read_rows
from verl_twgrpo.data.prompts import template_turns
from verl_twgrpo.rewards import compute_score


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A checkpoint, and which question."""
    parser.add_argument(
        "model", help="folder of a Hugging Face checkpoint (as `verl.model_merger` writes), or a hub name"
    )
    parser.add_argument("questions", type=Path, help="parquet file of `verl-twgrpo data` or `demo prepare`")
    parser.add_argument("--row", type=int, default=0, help="which question of the file (default: the first, 0)")
    parser.add_argument("--max-tokens", type=int, default=1024, help="longest answer (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Print question, answer, truth and reward. Raises ``ValueError`` if the file has no such row."""
    rows = read_rows(args.questions)
    if not 0 <= args.row < len(rows):
        raise ValueError(f"--row {args.row}: {args.questions} has rows 0 to {len(rows) - 1}")
    row = rows[args.row]
    text = greedy_answer(args.model, row, args.max_tokens)
    truth = row["reward_model"]["ground_truth"]
    score = compute_score(row["data_source"], text, truth, row["extra_info"])
    print(f"video   {row['videos'][0]['video']}")
    print(row["prompt"][-1]["content"].replace("<video>", "").strip())
    print(f"answer  {text}")
    print(f"truth   {truth}")
    print(f"reward  soft accuracy {score['soft_accuracy']:g}, format {score['format']:g}")
    return 0


def greedy_answer(model: str, row: Mapping[str, Any], max_tokens: int) -> str:
    """The likeliest answer of checkpoint ``model`` to one row, from the frames that a rollout of this row would see."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    import verl  # noqa: F401 - the plugin, before vLLM: without a GPU, vLLM needs it (platforms/)
    from transformers import AutoConfig, AutoProcessor

    from verl_twgrpo.platforms import cpu
    from verl_twgrpo.video.decode import prepare_video

    if cpu.is_selected():
        # GiB; vLLM takes half of the memory otherwise
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    processor = AutoProcessor.from_pretrained(model)
    prompt = processor.apply_chat_template(template_turns(row["prompt"]), add_generation_prompt=True, tokenize=False)
    frames, metadata = prepare_video(row["videos"][0], processor.video_processor.patch_size)
    as_sampled = {"do_sample_frames": False}
    inputs = processor(text=[prompt], videos=[frames], video_metadata=[metadata], **as_sampled)

    positions = AutoConfig.from_pretrained(model).get_text_config().max_position_embeddings

    from vllm import LLM, SamplingParams

    engine = LLM(
        model,
        max_model_len=min(len(inputs["input_ids"][0]) + max_tokens, positions),
        limit_mm_per_prompt={"image": 0, "video": 1},
        enforce_eager=True,  # one answer does not repay compilation
    )
    videos = {"video": [(frames, metadata)]}
    request = {"prompt": prompt, "multi_modal_data": videos, "mm_processor_kwargs": as_sampled}
    (answer,) = engine.generate(request, SamplingParams(temperature=0.0, max_tokens=max_tokens), use_tqdm=False)
    return answer.outputs[0].text
