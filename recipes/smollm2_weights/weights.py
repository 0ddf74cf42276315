"""Token weights of a real language model: which tokens weigh most, how the readings of D_t compare, what dtype does.

Samples groups of responses from SmolLM2-135M-Instruct (a GGUF file that transformers loads) to multi-answer questions,
takes D_t (Eq. 4, the released code's, and ``live``) and w_t from the model's own distributions with the functions that
training uses, and writes tables, figures and the token heat map. The README beside this file has command and findings.

Position t of a group means position t of all its rows, whatever they say there: that is the method's alignment.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from verl_twgrpo.algorithm import chunked_group_divergence, group_divergence, token_weights
from verl_twgrpo.algorithm.divergence import DivergenceKind
from verl_twgrpo.data.atomic import whole_file
from verl_twgrpo.evaluation.intervals import bootstrap_mean

KINDS = get_args(DivergenceKind)
NAMES = {"jsd": "paper (Eq. 4)", "released": "released code", "live": "live"}
PAIRS = (("jsd", "released"), ("jsd", "live"), ("released", "live"))
GROUP_SIZE = 8
ALPHA = 0.7
MAX_NEW_TOKENS = 160
# Prompts that are sampled at once: a step reads all of the model's weights whether it makes 8 tokens or 32.
PROMPTS_A_BATCH = 6
# Groups on which the costly checks run: other number formats, gradients (all of [G, T, V] passes by several times).
CHECKED_GROUPS = 6
# Positions of which logits of all rows are held at once: 8 x 16 x 49,152 x 4 bytes = 24 MiB.
SLICE = 16


# ---- questions and samples ------------------------------------------------------------------------------------------


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
    from verl_twgrpo.data.sources import SOURCES, LeftOut

    if path.endswith(".parquet"):
        items = read_parquet(path)
    else:
        nextgqa = SOURCES["nextgqa"]
        found = [one for _, row in read_annotations(path, nextgqa.SPLIT) for one in nextgqa.convert(row, nextgqa.SPLIT)]
        converted = [item for item in found if not isinstance(item, LeftOut)]
        items = [outcome.after for outcome in invert_all(converted, seed=seed)]
    several = [item for item in items if len(item.answers) > 1]
    if len(several) < count:
        raise ValueError(f"{path}: {len(several)} questions have several true options, --groups {count} needs more")
    return several[:count]


def load(folder: str, gguf: str) -> tuple[Any, Any]:
    """Model (float32) and tokenizer of a GGUF file."""
    from verl_twgrpo.platforms.torchvision_ops import declare_missing_ops

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


# ---- the model's distributions --------------------------------------------------------------------------------------


@torch.no_grad()
def hidden_states(model: Any, one: Sample) -> torch.Tensor:
    """Final hidden states [N, H] of the positions that predict the response tokens, row after row.

    The prompt runs once: its keys and values serve all rows.
    """
    prompt = model.model(torch.tensor([one.prompt]), use_cache=True)
    last, cache = prompt.last_hidden_state[0, -1:], prompt.past_key_values
    parts = []
    for row in one.responses:
        parts.append(last)
        if len(row) > 1:
            parts.append(model.model(torch.tensor([row[:-1]]), past_key_values=cache).last_hidden_state[0])
            cache.crop(len(one.prompt))
    return torch.cat(parts)


@dataclass
class Weighted:
    """A group with D_t and w_t by reading, [T] each; entropy and log-prob of its tokens, a list a row."""

    sample: Sample
    divergence: dict[str, np.ndarray]
    weight: dict[str, np.ndarray]
    entropy: list[np.ndarray]
    log_prob: list[np.ndarray]

    @property
    def live_T(self) -> np.ndarray:
        return live_rows(self.sample.lengths)


def weigh(one: Sample, hidden_NH: torch.Tensor, head_VH: torch.Tensor) -> Weighted:
    """D_t, w_t, entropies and log-probs of a group in all readings, from one head pass each, as training takes them."""
    targets_N = torch.tensor([token for row in one.responses for token in row])
    divergence, weight = {}, {}
    for kind in KINDS:
        passed = chunked_group_divergence(hidden_NH, one.lengths, head_VH, kind=kind, targets_N=targets_N)
        divergence[kind] = passed.divergence_T.numpy()
        weight[kind] = weights_of(passed.divergence_T, one.lengths, kind, passed.vocabulary_size)
    ends = np.cumsum(one.lengths)[:-1]
    return Weighted(
        one,
        divergence,
        weight,
        np.split(passed.entropy_N.numpy(), ends),
        np.split(passed.log_probs_N.numpy(), ends),
    )


def weights_of(divergence_T: torch.Tensor, lengths: Sequence[int], kind: str, vocabulary: int) -> np.ndarray:
    """w_t = 1 + alpha n_t."""
    return token_weights(divergence_T, lengths, alpha=ALPHA, kind=kind, vocabulary_size=vocabulary).numpy()


# ---- summaries: positions -------------------------------------------------------------------------------------------


def live_rows(lengths: Sequence[int]) -> np.ndarray:
    """How many rows have not ended, by position; [max(lengths)]."""
    return (np.arange(max(lengths)) < np.asarray(lengths)[:, None]).sum(0)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation; NaN for fewer than 3 values or where one side does not vary."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; NaN as ``pearson``."""
    return pearson(ranks(a), ranks(b))


def regions(live_T: np.ndarray) -> dict[str, np.ndarray]:
    """Masks of positions. Position 0 is in none but ``all``: one context, D = 0 in every reading."""
    later = np.arange(len(live_T)) > 0
    whole = live_T == live_T[0]
    return {
        "all": np.ones_like(later),
        "after the first": later,
        "no row ended": later & whole,
        "ragged tail": later & ~whole,
        "tail, 2 or more live": later & ~whole & (live_T > 1),
    }


def tail_share(weights_T: np.ndarray, live_T: np.ndarray) -> float:
    """Share of the weight of all tokens that lies where some row has ended; live_T as weights: share of the tokens."""
    on_tokens = weights_T * live_T
    return float(on_tokens[live_T < live_T[0]].sum() / on_tokens.sum())


def centred(values_T: np.ndarray, live_T: np.ndarray) -> np.ndarray:
    """Values less their mean over the positions with as many live rows: what is left when the tail's effect is out."""
    out = values_T.astype(float)
    for k in np.unique(live_T):
        out[live_T == k] -= out[live_T == k].mean()
    return out


def middle(values: Sequence[float]) -> tuple[float, float, float, int]:
    """Median, 10% and 90% quantile and number of the values that are not NaN."""
    kept = np.array([value for value in values if not math.isnan(value)])
    if not len(kept):
        return math.nan, math.nan, math.nan, 0
    low, median, high = np.quantile(kept, [0.1, 0.5, 0.9])
    return float(median), float(low), float(high), len(kept)


def mean_entropy(group: Weighted) -> np.ndarray:
    """Mean next-token entropy of the live rows by position, nats."""
    total = np.zeros(len(group.live_T))
    for row in group.entropy:
        total[: len(row)] += row
    return total / group.live_T


def correlation_table(groups: Sequence[Weighted]) -> list[dict]:
    """How w_t of two readings correlate within a group, by region."""
    table = []
    for first, second in PAIRS:
        for region in regions(np.ones(1)):
            masks = [regions(group.live_T)[region] for group in groups]
            pairs = [(g.weight[first][mask], g.weight[second][mask]) for g, mask in zip(groups, masks, strict=True)]
            for name, measure in (("spearman", spearman), ("pearson", pearson)):
                values = middle([measure(a, b) for a, b in pairs])
                table.append(_row({"first": first, "second": second, "region": region, "measure": name}, values))
    return table


def group_table(groups: Sequence[Weighted]) -> list[dict]:
    """A line a group and reading: lengths, weights with and without ended rows, shares of the tail."""
    table = []
    for group in groups:
        live_T, entropy_T = group.live_T, mean_entropy(group)
        masks = regions(live_T)
        content, tail = masks["no row ended"], masks["ragged tail"]
        for kind in KINDS:
            weight, divergence = group.weight[kind], group.divergence[kind]
            table.append(
                {
                    "id": group.sample.id,
                    "reading": kind,
                    "shortest": min(group.sample.lengths),
                    "longest": max(group.sample.lengths),
                    "tokens": sum(group.sample.lengths),
                    "at_limit": sum(length == MAX_NEW_TOKENS for length in group.sample.lengths),
                    "fewest_live": int(live_T[-1]),
                    "divergence_max": divergence.max(),
                    "divergence_max_at": int(divergence.argmax()),
                    "divergence_over_bound": _mean((divergence / bound(live_T))[content])
                    if kind == "jsd"
                    else math.nan,
                    "divergence_over_bound_max": (divergence / bound(live_T)).max() if kind == "jsd" else math.nan,
                    "weight_mean_no_row_ended": _mean(weight[content]),
                    "weight_std_no_row_ended": weight[content].std() if content.any() else math.nan,
                    "weight_mean_tail": _mean(weight[tail]),
                    "weight_mean_last": _mean(weight[live_T == live_T[-1]]),
                    "tail_weight_share": tail_share(weight, live_T),
                    "tail_token_share": tail_share(np.ones(len(live_T)), live_T),
                    "spearman_weight_live": spearman(weight[tail], live_T[tail]),
                    "spearman_weight_entropy_same_live": spearman(
                        *(centred(values[1:], live_T[1:]) for values in (weight, entropy_T))
                    ),
                    "heaviest_is_last": float(live_T[weight.argmax()] == live_T[-1]),
                    "lightest_is_last": float(live_T[1:][weight[1:].argmin()] == live_T[-1]),
                }
            )
    return table


def bound(live_T: np.ndarray, rows: int = GROUP_SIZE) -> np.ndarray:
    """Upper bound of D_t of Eq. 4 with k live of G rows: k ln G + (G - k) ln(G / (G - k))."""
    ended_T = rows - live_T
    return live_T * math.log(rows) + ended_T * np.log(rows / np.maximum(ended_T, 1))


def summary_table(by_group: Sequence[dict]) -> list[dict]:
    """Medians over groups of the numbers of ``group_table``, and means, which say how often a 0 or 1 is 1."""
    table = []
    for kind in KINDS:
        part = [line for line in by_group if line["reading"] == kind]
        for name in [name for name in part[0] if name not in ("id", "reading")]:
            values = [float(line[name]) for line in part]
            if not all(math.isnan(value) for value in values):
                line = _row({"reading": kind, "measure": name, "mean": float(np.nanmean(values))}, middle(values))
                table.append(line)
    return table


def profile_table(groups: Sequence[Weighted]) -> list[dict]:
    """Means over the groups that reach a position."""
    table = []
    for t in range(max(len(group.live_T) for group in groups)):
        there = [group for group in groups if t < len(group.live_T)]
        line = {"position": t, "groups": len(there), "live_rows": _mean([g.live_T[t] for g in there])}
        for kind in KINDS:
            line[f"divergence_{kind}"] = _mean([group.divergence[kind][t] for group in there])
            line[f"weight_{kind}"] = _mean([group.weight[kind][t] for group in there])
        table.append(line)
    return table


def live_table(groups: Sequence[Weighted]) -> list[dict]:
    """D_t and w_t by the number of live rows: mean over groups of a group's mean, position 0 left out."""
    table = []
    for k in range(GROUP_SIZE, 0, -1):
        for kind in KINDS:
            masks = [(group.live_T == k) & (np.arange(len(group.live_T)) > 0) for group in groups]
            there = [(group, mask) for group, mask in zip(groups, masks, strict=True) if mask.any()]
            weights = [group.weight[kind][mask].mean() for group, mask in there]
            low, high = bootstrap_mean(weights, seed=0)
            table.append(
                {
                    "live_rows": k,
                    "reading": kind,
                    "groups": len(there),
                    "positions": sum(int(mask.sum()) for _, mask in there),
                    "divergence": _mean([group.divergence[kind][mask].mean() for group, mask in there]),
                    "weight": _mean(weights),
                    "low": low,
                    "high": high,
                }
            )
    return table


# ---- summaries: tokens ----------------------------------------------------------------------------------------------

CLASSES = (
    "first token",
    "end of response",
    "format tag",
    "option letter",
    "digit",
    "punctuation",
    "line break",
    "function word",
    "word",
    "word piece",
)
_TAG = re.compile(r"</?(?:think|answer)>")
_FUNCTION_WORD_LIST = """
a an the this that these those it its he she they them his her their him i you we us our your my me who whom which what
and or but nor so yet if because as than then while when where why how not no of to in on at by for from with about into
over after before between through under up down out off is are was were be been being am do does did has have had can
could will would shall should may might must there here also just only both each such some any all
"""
_FUNCTION_WORDS = frozenset(_FUNCTION_WORD_LIST.split())


def token_classes(tokens: Sequence[str], letters: str, end: str) -> list[str]:
    """The class of each token of a response: one of CLASSES. ``letters``: of the question's options."""
    tagged = set()
    starts = np.cumsum([0, *map(len, tokens)])
    for tag in _TAG.finditer("".join(tokens)):
        tagged |= {t for t in range(len(tokens)) if starts[t] < tag.end() and starts[t + 1] > tag.start()}
    classes = []
    for t, token in enumerate(tokens):
        text = token.strip()
        if t == 0:
            name = "first token"
        elif token == end:
            name = "end of response"
        elif t in tagged:
            name = "format tag"
        elif not text:
            name = "line break" if "\n" in token else "punctuation"
        elif text in letters and len(text) == 1:
            name = "option letter"
        elif text.isdigit():
            name = "digit"
        elif not any(character.isalnum() for character in text):
            name = "punctuation"
        elif token[0].isalpha() and tokens[t - 1][-1:].isalpha():
            name = "word piece"
        else:
            name = "function word" if text.lower() in _FUNCTION_WORDS else "word"
        classes.append(name)
    return classes


def class_table(groups: Sequence[Weighted], classes: Sequence[Sequence[Sequence[str]]]) -> list[dict]:
    """Mean weight of the tokens of a class. classes: group, row, token.

    ``same_live``: the mean of weights less that of positions of the group with as many live rows, so that a class
    that stands early or late gains nothing from that; interval from resampling groups.
    """
    table = []
    for name in CLASSES:
        for kind in KINDS:
            raw, same, tokens = [], [], 0
            for group, rows in zip(groups, classes, strict=True):
                where = np.array([t for row in rows for t, found in enumerate(row) if found == name], dtype=int)
                if not len(where):
                    continue
                tokens += len(where)
                raw.append(group.weight[kind][where].mean())
                same.append(_centred_after_first(group, kind)[where].mean())
            if not tokens:
                continue
            low, high = bootstrap_mean(same, seed=0)
            table.append(
                {
                    "class": name,
                    "reading": kind,
                    "tokens": tokens,
                    "groups": len(raw),
                    "weight": _mean(raw),
                    "same_live": _mean(same),
                    "low": low,
                    "high": high,
                }
            )
    return table


def word_table(groups: Sequence[Weighted], tokens: Sequence[Sequence[Sequence[str]]], least: int = 20) -> list[dict]:
    """Tokens that come ``least`` times or more after position 0, heaviest first within a reading.

    ``same_live`` as in ``class_table``, a mean over the token's occurrences.
    """
    table = []
    for kind in KINDS:
        found: dict[str, list[tuple[float, float]]] = {}
        for group, rows in zip(groups, tokens, strict=True):
            same = _centred_after_first(group, kind)
            for row in rows:
                for t, token in enumerate(row[1:], start=1):
                    found.setdefault(token, []).append((group.weight[kind][t], same[t]))
        lines = [
            {"reading": kind, "token": token.replace("\n", "↵"),
             "times": len(values), "weight": _mean([v[0] for v in values]),
             "same_live": _mean([v[1] for v in values])}
            for token, values in found.items() if len(values) >= least
        ]  # fmt: skip
        table += sorted(lines, key=lambda line: -line["same_live"])
    return table


def extreme_table(groups: Sequence[Weighted], tokens: Sequence[Sequence[Sequence[str]]]) -> list[dict]:
    """The heaviest and the lightest position of each group after position 0, with what its live rows say there."""
    table = []
    for group, rows in zip(groups, tokens, strict=True):
        for kind in KINDS:
            weight = group.weight[kind]
            for name, t in (("heaviest", weight[1:].argmax() + 1), ("lightest", weight[1:].argmin() + 1)):
                table.append(
                    {
                        "reading": kind,
                        "which": name,
                        "id": group.sample.id,
                        "position": int(t),
                        "live_rows": int(group.live_T[t]),
                        "weight": weight[t],
                        "divergence": group.divergence[kind][t],
                        "entropy": mean_entropy(group)[t],
                        "tokens": " | ".join(in_context(row, t) for row in rows if t < len(row)),
                    }
                )
    return table


def in_context(tokens: Sequence[str], t: int, before: int = 3) -> str:
    """Token t in brackets after the ones before it, on one line."""
    return ("".join(tokens[max(0, t - before) : t]) + f"[{tokens[t]}]").replace("\n", "↵")


def _centred_after_first(group: Weighted, kind: str) -> np.ndarray:
    """``centred`` weights; position 0, which is alone in its kind, keeps its distance from the positions like it."""
    weight, live_T = group.weight[kind].astype(float), group.live_T
    if len(weight) == 1:
        return np.zeros(1)
    like = live_T[1:] == live_T[0]
    first = weight[0] - (weight[1:][like].mean() if like.any() else weight[0])
    return np.concatenate([[first], centred(weight[1:], live_T[1:])])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _row(keys: dict, values: tuple[float, float, float, int]) -> dict:
    return {**keys, **dict(zip(("median", "p10", "p90", "groups"), values, strict=True))}


# ---- number formats, identical rows, gradients ---------------------------------------------------------------------


def logit_slices(
    hidden_NH: torch.Tensor, lengths: Sequence[int], head_VH: torch.Tensor
) -> Iterator[tuple[int, list[int], torch.Tensor]]:
    """(first position, lengths from there on within the slice, logits_GSV in float32) over a group; padding is 0."""
    padded_GTH = torch.nn.utils.rnn.pad_sequence(hidden_NH.split(list(lengths)), batch_first=True)
    for first in range(0, max(lengths), SLICE):
        part_GSH = padded_GTH[:, first : first + SLICE]
        inside = [min(max(length - first, 0), part_GSH.shape[1]) for length in lengths]
        yield first, inside, part_GSH.float() @ head_VH.float().t()


def rounded_divergences(
    hidden_NH: torch.Tensor, lengths: Sequence[int], head_VH: torch.Tensor
) -> dict[tuple[str, str], torch.Tensor]:
    """D_t by (what was rounded to bfloat16: logits or log-probs, reading). Log-probs are not normalised again."""
    parts: dict[tuple[str, str], list[torch.Tensor]] = {}
    for _, inside, logits_GSV in logit_slices(hidden_NH, lengths, head_VH):
        rounded = {
            "logits": logits_GSV.bfloat16().float().log_softmax(-1),
            "log-probs": logits_GSV.log_softmax(-1).bfloat16().float(),
        }
        for what, log_probs_GSV in rounded.items():
            for kind in KINDS:
                parts.setdefault((what, kind), []).append(group_divergence(log_probs_GSV, inside, kind))
    return {key: torch.cat(slices) for key, slices in parts.items()}


def compare(exact_T: np.ndarray, other_T: np.ndarray, exact_w: np.ndarray, other_w: np.ndarray) -> dict[str, float]:
    """Error of D_t (relative: after position 0, where D_t is 0) and of w_t."""
    relative = np.abs(other_T[1:] - exact_T[1:])[exact_T[1:] > 0] / exact_T[1:][exact_T[1:] > 0]
    return {
        "divergence_relative_median": float(np.median(relative)) if len(relative) else math.nan,
        "divergence_relative_max": float(relative.max()) if len(relative) else math.nan,
        "divergence_shift_median": float(np.median(other_T[1:] - exact_T[1:])) if len(exact_T) > 1 else math.nan,
        "divergence_error_max": float(np.abs(other_T - exact_T).max()),
        "divergence_at_0": float(other_T[0]),
        "weight_error_max": float(np.abs(other_w - exact_w).max()),
    }


def dtype_lines(group: Weighted, hidden: torch.Tensor, head: torch.Tensor, half: torch.Tensor) -> list[dict]:
    """``compare`` of one group in four settings; ``half``: hidden states of the model in bfloat16."""
    lengths = group.sample.lengths
    of_half, of_whole = (rounded_divergences(states, lengths, head.to(states.dtype)) for states in (half, hidden))
    lines = []
    for kind in KINDS:
        trained = chunked_group_divergence(half, lengths, head.to(half.dtype), kind=kind)
        settings = {
            "bf16 model, fp32 logits (training)": trained.divergence_T,
            "bf16 model, bf16 logits": of_half["logits", kind],
            "fp32 model, bf16 logits": of_whole["logits", kind],
            "fp32 model, bf16 log-probs": of_whole["log-probs", kind],
        }
        for name, divergence_T in settings.items():
            weights = weights_of(divergence_T, lengths, kind, len(head))
            errors = compare(group.divergence[kind], divergence_T.numpy(), group.weight[kind], weights)
            lines.append({"setting": name, "reading": kind, "id": group.sample.id, **errors})
    return sorted(lines, key=lambda line: list(settings).index(line["setting"]))


@torch.no_grad()
def noise_of_identical_rows(model: Any, one: Sample) -> float:
    """Range of D_t (Eq. 4) over the positions of GROUP_SIZE copies of one response, padded differently.

    Copies differ only by float noise, as rows do that lie elsewhere in a batch. Nats.
    """
    row = max(one.responses, key=len)
    ids = one.prompt + row[:-1]
    padded = torch.tensor([[0] * k + ids + [0] * (GROUP_SIZE - 1 - k) for k in range(GROUP_SIZE)])
    mask = torch.tensor([[0] * k + [1] * len(ids) + [0] * (GROUP_SIZE - 1 - k) for k in range(GROUP_SIZE)])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    hidden = model.model(padded, attention_mask=mask, position_ids=positions).last_hidden_state
    start = len(one.prompt) - 1
    copies = torch.cat([hidden[k, k + start : k + start + len(row)] for k in range(GROUP_SIZE)])
    divergence_T = chunked_group_divergence(copies, [len(row)] * GROUP_SIZE, model.lm_head.weight).divergence_T
    return float(divergence_T.max() - divergence_T.min())


def gradient_leak(
    group: Weighted, hidden_NH: torch.Tensor, head_VH: torch.Tensor, kind: str, advantages_G: np.ndarray
) -> tuple[float, float]:
    """Norm of the gradient through w over that of the gradient with w held fixed, towards the logits, on-policy.

    The objective is sum_it A_i w_t r_it with r = 1. Through w_t = 1 + alpha (D_t - D_min) / (D_max - D_min) every
    position t gets (c_t - [t = argmax] sum_s c_s n_s) alpha / (D_max - D_min) dD_t, c_t the sum of A_i over the rows
    live at t: nothing where all rows are live, but for the position of the maximum. D_min is position 0's, where
    dD = 0. Returns (leak over all positions / fixed part, leak over fully live positions / fixed part).
    """
    lengths, divergence_T = group.sample.lengths, group.divergence[kind]
    span = float(np.ptp(divergence_T))
    n_T = (divergence_T - divergence_T.min()) / span
    live_GT = np.arange(max(lengths)) < np.asarray(lengths)[:, None]
    c_T = (advantages_G[:, None] * live_GT).sum(0)
    through_T = c_T.copy()
    through_T[divergence_T.argmax()] -= (c_T * n_T).sum()
    through_T *= ALPHA / span
    leak_T, fixed_T = np.zeros(len(n_T)), np.zeros(len(n_T))
    weight_T = 1 + ALPHA * n_T
    for first, inside, logits_GSV in logit_slices(hidden_NH, lengths, head_VH):
        logits_GSV.requires_grad_(True)
        log_probs_GSV = logits_GSV.log_softmax(-1)
        (gradient_GSV,) = torch.autograd.grad(group_divergence(log_probs_GSV, inside, kind).sum(), logits_GSV)
        probs_GSV = log_probs_GSV.detach().exp()
        where = slice(first, first + probs_GSV.shape[1])
        leak_T[where] = gradient_GSV.pow(2).sum((0, 2)).numpy() * through_T[where] ** 2
        for row, response in enumerate(group.sample.responses):
            tokens = torch.tensor(response[where])
            p_SV = probs_GSV[row, : len(tokens)]
            chosen = p_SV.gather(1, tokens[:, None])[:, 0]
            # |onehot - p|^2
            norm = (p_SV.pow(2).sum(-1) + 1 - 2 * chosen).numpy()
            stop = first + len(tokens)
            fixed_T[first:stop] += (advantages_G[row] * weight_T[first:stop]) ** 2 * norm
    fixed = math.sqrt(fixed_T.sum())
    return math.sqrt(leak_T.sum()) / fixed, math.sqrt(leak_T[live_GT.all(0)].sum()) / fixed


# ---- what is written ------------------------------------------------------------------------------------------------


def write_csv(path: Path, table: Sequence[Mapping]) -> None:
    """Lines with the same columns; floats to four digits."""
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        for line in table:
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float | np.floating) else v for k, v in line.items()})


def draw(out: Path, tables: Mapping[str, list[dict]], groups: Sequence[Weighted], command: str) -> None:
    """weights.png: by position, by live rows, one reading against another. tokens.png: by class of token."""
    from verl_twgrpo.report import style

    colour = dict(zip(KINDS, style.COLOURS, strict=False))
    with style.look():
        figure, (by_position, by_live, against) = style.new_figure(3, 3.5)
        profile = tables["profile"]
        positions = [line["position"] for line in profile]
        share = [line["live_rows"] / GROUP_SIZE for line in profile]
        low = 1.0
        by_position.fill_between(positions, low, [low + ALPHA * s for s in share], color=style.NO_DATA)
        by_position.text(
            0.97, 0.03, "grey: share of live rows", transform=by_position.transAxes, ha="right", fontsize=7
        )
        for kind in KINDS:
            weights = [line[f"weight_{kind}"] for line in profile]
            by_position.plot(positions, weights, color=colour[kind], label=NAMES[kind], linewidth=1.2)
            lines = [line for line in tables["live_rows"] if line["reading"] == kind and line["groups"]]
            means = np.array([line["weight"] for line in lines])
            ends = np.abs(np.array([[line["low"], line["high"]] for line in lines]).T - means)
            by_live.errorbar(
                [line["live_rows"] for line in lines], means, yerr=ends, color=colour[kind], marker="o", markersize=4,
                capsize=2, label=NAMES[kind],
            )  # fmt: skip
        by_position.set_ylim(low - 0.03, low + ALPHA + 0.03)
        by_position.set(title="Weight by position", xlabel="token position", ylabel="mean weight")
        by_live.set(title="Weight by live rows", xlabel="rows that have not ended")
        by_live.invert_xaxis()
        by_live.legend(fontsize=7)
        # every fifth position: more dots hide one another
        points = [(g.weight["jsd"][1::5], g.weight["released"][1::5], g.live_T[1::5]) for g in groups]
        x, y, live = (np.concatenate(column) for column in zip(*points, strict=True))
        dots = against.scatter(x, y, c=live, cmap=style.WEIGHTS_MAP, s=4, linewidths=0, antialiased=False)
        against.set(title="Two readings of a position", xlabel=f"weight, {NAMES['jsd']}", ylabel=f"{NAMES['released']}")
        figure.colorbar(dots, ax=against, label="live rows", ticks=range(1, GROUP_SIZE + 1))
        style.save(figure, out / "weights.png", ["SmolLM2-135M-Instruct"], command)

        figure, axes = style.new_figure(len(KINDS), 3.4)
        names = [name for name in CLASSES if any(line["class"] == name for line in tables["classes"])][1:]
        for kind, axis in zip(KINDS, axes, strict=True):
            lines = {line["class"]: line for line in tables["classes"] if line["reading"] == kind}
            for height, name in enumerate(reversed(names)):
                line = lines[name]
                axis.plot([line["low"], line["high"]], [height] * 2, color=colour[kind], linewidth=2)
                axis.plot(line["same_live"], height, "o", color=colour[kind], markersize=5)
            axis.axvline(0, color="#777777", linewidth=0.8)
            shown = [f"{name} ({lines[name]['tokens']})" for name in reversed(names)] if axis is axes[0] else []
            axis.set_yticks(range(len(names)), shown or [""] * len(names), fontsize=8)
            axis.set(title=NAMES[kind])
        figure.suptitle(
            "Weight of a class of tokens less that of positions with as many live rows (tokens in brackets)",
            x=0.01, ha="left", fontsize=9,
        )  # fmt: skip
        style.save(figure, out / "tokens.png", ["SmolLM2-135M-Instruct"], command)


def heat_map_page(groups: Sequence[Weighted], tokenizer: Any, command: str) -> str:
    """The token heat map, once a reading, of the group of which the fewest rows reach the last position."""
    from verl_twgrpo.report.heatmap import heat_map
    from verl_twgrpo.report.reading import Response, TokenGroup
    from verl_twgrpo.rewards import compute_score

    group = min(groups, key=lambda group: group.live_T[-1])
    pages = []
    for kind in KINDS:
        responses = []
        for row, ids in enumerate(group.sample.responses):
            text = tokenizer.decode(ids, skip_special_tokens=True)
            scores = compute_score("nextgqa", text, group.sample.truth, {"options": list(group.sample.letters)})
            responses.append(
                Response(
                    reward=scores["score"],
                    accuracy=scores["accuracy"],
                    soft_accuracy=scores["soft_accuracy"],
                    format=scores["format"],
                    text=text,
                    tokens=[tokenizer.decode([token]) for token in ids],
                    weight=group.weight[kind][: len(ids)].tolist(),
                    divergence=group.divergence[kind][: len(ids)].tolist(),
                    entropy=group.entropy[row].tolist(),
                    log_prob=group.log_prob[row].tolist(),
                )
            )
        prompt = tokenizer.decode(group.sample.prompt)
        pages.append(TokenGroup(NAMES[kind], 0, group.sample.id, group.sample.truth, prompt, responses))
    return heat_map(pages, command)


def checks_table(checked: Sequence[dict]) -> list[dict]:
    """Medians over groups of the costly checks, by name."""
    names = {(line["check"], line["reading"]) for line in checked}
    return [
        _row(
            {"check": check, "reading": kind},
            middle([c["value"] for c in checked if (c["check"], c["reading"]) == key]),
        )
        for key in sorted(names)
        for check, kind in [key]
    ]


def dtype_table(lines: Sequence[dict]) -> list[dict]:
    """By setting and reading: medians over groups, maxima over groups for what ends in max."""
    table = []
    for setting, kind in dict.fromkeys((line["setting"], line["reading"]) for line in lines):
        part = [line for line in lines if (line["setting"], line["reading"]) == (setting, kind)]
        table.append({"setting": setting, "reading": kind, "groups": len(part)})
        for name in [name for name in part[0] if name not in ("setting", "reading", "id")]:
            table[-1][name] = float((np.max if name.endswith("max") else np.median)([line[name] for line in part]))
    return table


def samples_of(args: argparse.Namespace, model: Any, tokenizer: Any, out: Path) -> list[Sample]:
    """The samples, from an earlier run with the same settings if OUT has them: sampling takes most of the time."""
    path = out / "samples.json"
    settings = {
        "gguf": args.gguf, "questions": Path(args.questions).name, "groups": args.groups, "seed": args.seed,
        "group_size": GROUP_SIZE, "max_new_tokens": MAX_NEW_TOKENS, "prompts_a_batch": PROMPTS_A_BATCH,
    }  # fmt: skip
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["settings"] != settings:
            raise ValueError(f"{path}: was sampled with other settings ({kept['settings']}); give another --out")
        print(f"samples of {path} taken, made in {kept['wall_s']:.0f} s")
        return [Sample(**one) for one in kept["groups"]]
    start = time.perf_counter()
    samples = list(sample(model, tokenizer, read_questions(args.questions, args.groups, args.seed), args.seed))
    kept = {"settings": settings, "wall_s": time.perf_counter() - start, "groups": [asdict(one) for one in samples]}
    with whole_file(path) as part:
        part.write_text(json.dumps(kept), encoding="utf-8")
    print(f"sampled in {kept['wall_s']:.0f} s")
    return samples


def describe(model: Any, tokenizer: Any, samples: Sequence[Sample], out: Path, command: str) -> None:
    """Weights in all readings: tables, figures and the heat map."""
    head = model.lm_head.weight.detach()
    groups = [weigh(one, hidden_states(model, one), head) for one in samples]
    end = tokenizer.decode([model.generation_config.eos_token_id])
    tokens = [[[tokenizer.decode([token]) for token in row] for row in one.responses] for one in samples]
    classes = [
        [token_classes(row, one.letters, end) for row in rows] for one, rows in zip(samples, tokens, strict=True)
    ]
    by_group = group_table(groups)
    tables = {
        "groups": by_group,
        "summary": summary_table(by_group),
        "correlations": correlation_table(groups),
        "profile": profile_table(groups),
        "live_rows": live_table(groups),
        "classes": class_table(groups, classes),
        "words": word_table(groups, tokens),
        "extremes": extreme_table(groups, tokens),
    }
    for name, table in tables.items():
        # in a few groups no token comes often enough for the table of words
        if table:
            write_csv(out / f"{name}.csv", table)
    draw(out, tables, groups, command)
    with whole_file(out / "tokens.html") as part:
        part.write_text(heat_map_page(groups, tokenizer, command), encoding="utf-8")


def check(model: Any, samples: Sequence[Sample], out: Path, seed: int) -> None:
    """Number formats, gradients through w and identical rows, on the first groups; the model ends up in bfloat16."""
    samples = samples[:CHECKED_GROUPS]
    head = model.lm_head.weight.detach().clone()
    hidden = [hidden_states(model, one) for one in samples]
    groups = [weigh(one, states, head) for one, states in zip(samples, hidden, strict=True)]
    checked, lines, random = [], [], np.random.default_rng(seed)
    for group, states in zip(groups, hidden, strict=True):
        # the model's rewards rarely differ within a group, so that advantages are drawn
        advantages = random.standard_normal(GROUP_SIZE)
        advantages = (advantages - advantages.mean()) / advantages.std(ddof=1)
        for kind in ("jsd", "released"):
            whole, live_part = gradient_leak(group, states, head, kind, advantages)
            checked.append({"check": "gradient through w", "reading": kind, "value": whole})
            checked.append({"check": "gradient through w, all rows live", "reading": kind, "value": live_part})
    model.bfloat16()
    for group, states in zip(groups, hidden, strict=True):
        lines += dtype_lines(group, states, head, hidden_states(model, group.sample))
        noise = noise_of_identical_rows(model, group.sample) / GROUP_SIZE
        checked.append({"check": "identical rows, bf16, nats a row", "reading": "jsd", "value": noise})
    write_csv(out / "dtype.csv", dtype_table(lines))
    write_csv(out / "checks.csv", checks_table(checked))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="folder of the GGUF file")
    parser.add_argument("--gguf", default="SmolLM2-135M-Instruct.Q4_1.gguf", help="the file in it")
    parser.add_argument("--questions", required=True, help="parquet of `data convert`, or NExT-GQA's annotations")
    parser.add_argument("--out", required=True, help="folder for tables, figures, heat map and samples")
    parser.add_argument("--groups", type=int, default=24, help="questions, eight responses each")
    parser.add_argument("--seed", type=int, default=0, help="of sampling and of the inversion")
    args = parser.parse_args()
    out = Path(args.out)
    # folders differ from machine to machine: the line in the figures has the files' names only
    files = ["--model", Path(args.model).name, "--questions", Path(args.questions).name]
    command = shlex.join(["python", Path(sys.argv[0]).name, *files, "--groups", str(args.groups)])
    model, tokenizer = load(args.model, args.gguf)
    samples = samples_of(args, model, tokenizer, out)
    for name, work in (
        ("weights", lambda: describe(model, tokenizer, samples, out, command)),
        ("checks", lambda: check(model, samples, out, args.seed)),
    ):
        start = time.perf_counter()
        work()
        print(f"{name} in {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
