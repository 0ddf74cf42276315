"""Weightings that read entropies, or what the question does to log-probs, on the same responses of the language model.

Writes what a run would have dumped, with log-probs under the prompt whose question is gone in the place of those under
a blank video, so that ``verl-twgrpo weigh`` compares weightings on it. The README beside this file has the commands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from verl_twgrpo.algorithm import chunked_group_divergence, group_normalised_advantage
from verl_twgrpo.files import atomic_write
from verl_twgrpo.training.dump import SCHEMA, VOCABULARY_SIZE

from .drawing import scored
from .measuring import Weighted, hidden_states, weigh
from .sampling import arguments, load, read_questions, samples_of

BLANK = "log_probs_blank"


def without_question(prompt: str, question: str) -> str:
    """The prompt with its question gone, options and instructions as they are. Raises ``ValueError`` if it has none."""
    if question not in prompt:
        raise ValueError(f"the prompt does not hold its question {question!r}")
    return prompt.replace(question, "")


def blank_log_probs(model: Any, group: Weighted, prompt: Sequence[int]) -> list[np.ndarray]:
    """Log-prob of every token of the responses behind another prompt, one array per response."""
    one = replace(group.sample, prompt=list(prompt))
    targets_N = torch.tensor([token for row in one.responses for token in row])
    head = model.lm_head.weight.detach()
    passed = chunked_group_divergence(hidden_states(model, one), one.lengths, head, kind="live", targets_N=targets_N)
    return np.split(passed.log_probs_N.numpy(), np.cumsum(one.lengths)[:-1])


def dump_rows(group: Weighted, blank: Sequence[np.ndarray], tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Rows of a step's dump (training/dump.py); divergence and weight are those of Eq. 4 and 5."""
    rows = list(scored(group, tokenizer))
    rewards = torch.tensor([scores["score"] for _, _, scores in rows])
    advantages = group_normalised_advantage(rewards, [0] * len(rows))
    for row, (ids, text, scores) in enumerate(rows):
        weight, divergence = (values["jsd"][: len(ids)] for values in (group.weight, group.divergence))
        yield {
            "step": 1,
            "group": group.sample.id,
            "id": group.sample.id,
            "ground_truth": group.sample.truth,
            "reward": scores["score"],
            **{name: scores[name] for name in ("accuracy", "soft_accuracy", "format")},
            "text": text,
            "token_ids": ids,
            "tokens": [tokenizer.decode([token]) for token in ids],
            "weight": weight.tolist(),
            "divergence": divergence.tolist(),
            "entropy": group.entropy[row].tolist(),
            "log_prob": group.log_prob[row].tolist(),
            "advantage": (advantages[row].item() * weight).tolist(),
            BLANK: blank[row].tolist(),
        }


def main() -> None:
    args = arguments("smollm2_weights.others", __doc__, "samples and dump")
    out = Path(args.out)
    model, tokenizer = load(args.model, args.gguf)
    samples = samples_of(args, model, tokenizer, out)
    items = {item.id: item for item in read_questions(args.questions, args.groups, args.seed)}
    rows: list[dict[str, Any]] = []
    for one in samples:
        group = weigh(one, hidden_states(model, one), model.lm_head.weight.detach())
        prompt = without_question(tokenizer.decode(one.prompt), items[one.id].question)
        blank = blank_log_probs(model, group, tokenizer(prompt, add_special_tokens=False).input_ids)
        rows += dump_rows(group, blank, tokenizer)
    schema = pa.schema([*SCHEMA, pa.field(BLANK, pa.list_(pa.float32()))])
    schema = schema.with_metadata({VOCABULARY_SIZE: str(len(model.lm_head.weight))})
    path = out / "tw_grpo" / "step_000001.parquet"
    with atomic_write(path) as part:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), part, compression="zstd")
    print(f"written: {path}, {len(rows)} responses; verl-twgrpo weigh {out} --with tw_grpo,top_entropy,pgpo")


if __name__ == "__main__":
    main()
