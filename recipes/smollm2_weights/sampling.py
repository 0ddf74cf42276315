"""Questions with several true options, and groups of responses that the model samples to them."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from verl_twgrpo.files import ensure_same_settings, write_text

GROUP_SIZE = 8
MAX_NEW_TOKENS = 160
# Prompts that are sampled at once: a step reads all of the model's weights whether it makes 8 tokens or 32.
PROMPTS_A_BATCH = 6


@dataclass(frozen=True)
class Sample:
    """A prompt and its group of sampled responses, as token ids; a response that ended has its end token."""

    id: str
    truth: str
    letters: str
    prompt: list[int]
    responses: list[list[int]]

    @property
    def lengths(self) -> list[int]:
        return [len(row) for row in self.responses]


def read_questions(path: str, count: int, seed: int) -> list:
    """The first ``count`` questions with several true options.

    ``path``: a parquet file that ``verl-twgrpo data convert`` or ``data invert`` wrote, or NExT-GQA's annotations
    (.json, .jsonl), which are converted and inverted here: those commands leave out a question whose video is not
    there, and text needs none. Raises ``ValueError`` if the file has fewer such questions.
    """
    from verl_twgrpo.data.inversion import invert_all
    from verl_twgrpo.data.parquet import read_parquet
    from verl_twgrpo.data.reading import read_annotations
    from verl_twgrpo.data.sources import SOURCES, Skipped

    if path.endswith(".parquet"):
        items = read_parquet(path)
    else:
        nextgqa = SOURCES["nextgqa"]
        found = [one for _, row in read_annotations(path, nextgqa.split) for one in nextgqa.convert(row, nextgqa.split)]
        converted = [item for item in found if not isinstance(item, Skipped)]
        items = [outcome.after for outcome in invert_all(converted, seed=seed, negation="paper")]
    several = [item for item in items if len(item.answers) > 1]
    if len(several) < count:
        raise ValueError(f"{path}: {len(several)} questions have several true options, --groups {count} needs more")
    return several[:count]


def arguments(prog: str, description: str | None, out: str) -> argparse.Namespace:
    """The command line of this recipe's two programs: model, questions, and how many of them."""
    parser = argparse.ArgumentParser(prog=f"python -m recipes.{prog}", description=description)
    parser.add_argument("--model", required=True, help="folder of the GGUF file")
    parser.add_argument("--gguf", default="SmolLM2-135M-Instruct.Q4_1.gguf", help="the file in it")
    parser.add_argument("--questions", required=True, help="parquet of `data convert`, or NExT-GQA's annotations")
    parser.add_argument("--out", required=True, help=f"folder for {out}")
    parser.add_argument("--groups", type=int, default=24, help="questions, eight responses each")
    parser.add_argument("--seed", type=int, default=0, help="of sampling and of the inversion")
    return parser.parse_args()


def load(folder: str, gguf: str) -> tuple[Any, Any]:
    """Model (float32) and tokenizer of a GGUF file."""
    from verl_twgrpo.torchvision_ops import declare_missing_ops

    declare_missing_ops()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf, dtype=torch.float32).eval()
    tokenizer.padding_side = "left"
    tokenizer.pad_token_id = model.generation_config.eos_token_id
    return model, tokenizer


def sample(model: Any, tokenizer: Any, items: Sequence, seed: int) -> Iterator[Sample]:
    """Groups of GROUP_SIZE responses at temperature 1, from the whole distribution."""
    from verl_twgrpo.data.prompts import messages

    end = model.generation_config.eos_token_id
    for first in range(0, len(items), PROMPTS_A_BATCH):
        part = items[first : first + PROMPTS_A_BATCH]
        # the question as training asks it, without the video in front
        chats = [[{**turn, "content": turn["content"].removeprefix("<video>")} for turn in messages(i)] for i in part]
        texts = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats]
        repeated = [text for text in texts for _ in range(GROUP_SIZE)]
        batch = tokenizer(repeated, return_tensors="pt", padding=True, add_special_tokens=False)
        torch.manual_seed(seed + first)
        with torch.no_grad():
            made = model.generate(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=MAX_NEW_TOKENS,
                eos_token_id=end,
                pad_token_id=end,
            )
        rows = [ended(row, end) for row in made[:, batch.input_ids.shape[1] :].tolist()]
        for k, (item, text) in enumerate(zip(part, texts, strict=True)):
            prompt = tokenizer(text, add_special_tokens=False).input_ids
            responses = rows[k * GROUP_SIZE : (k + 1) * GROUP_SIZE]
            yield Sample(item.id, item.ground_truth, "".join(item.letters), prompt, responses)
        print(f"sampled {first + len(part)} of {len(items)} groups", flush=True)


def ended(row: list[int], end: int) -> list[int]:
    """A sampled row up to and with its end token."""
    return row[: row.index(end) + 1] if end in row else row


def samples_of(args: argparse.Namespace, model: Any, tokenizer: Any, out: Path) -> list[Sample]:
    """The samples, from an earlier run with the same settings if OUT has them: sampling takes most of the time."""
    path = out / "samples.json"
    settings = {
        "gguf": args.gguf, "questions": Path(args.questions).name, "groups": args.groups, "seed": args.seed,
        "group_size": GROUP_SIZE, "max_new_tokens": MAX_NEW_TOKENS, "prompts_a_batch": PROMPTS_A_BATCH,
    }  # fmt: skip
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        ensure_same_settings(path, kept["settings"], settings)
        print(f"samples of {path} taken, made in {kept['wall_s']:.0f} s")
        return [Sample(**one) for one in kept["groups"]]
    start = time.perf_counter()
    samples = list(sample(model, tokenizer, read_questions(args.questions, args.groups, args.seed), args.seed))
    kept = {"settings": settings, "wall_s": time.perf_counter() - start, "groups": [asdict(one) for one in samples]}
    write_text(path, json.dumps(kept))
    print(f"sampled in {kept['wall_s']:.0f} s")
    return samples
