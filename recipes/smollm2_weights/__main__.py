"""Token weights of a real language model: which tokens weigh most, how the readings of D_t compare, what dtype does.

Samples groups of responses from SmolLM2-135M-Instruct (a GGUF file that transformers loads) to multi-answer questions,
takes D_t (Eq. 4, the released code's, and ``live``) and w_t from the model's own distributions with the functions that
training uses, and writes tables, figures and the token heat map. The README beside this file has command and findings.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from verl_twgrpo.algorithm.token_classes import token_classes
from verl_twgrpo.files import write_csv, write_text

from .checks import dtype_lines, dtype_table, gradient_leak, noise_of_identical_rows
from .drawing import draw, heat_map_page
from .measuring import hidden_states, weigh
from .positions import correlation_table, group_table, live_table, profile_table, summary_table
from .sampling import GROUP_SIZE, Sample, arguments, load, samples_of
from .statistics import middle, quantile_line
from .tokens import class_table, extreme_table, word_table

# Groups on which the costly checks run: other number formats, gradients (all of [G, T, V] passes by several times).
CHECKED_GROUPS = 6


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
            write_table(out / f"{name}.csv", table)
    draw(out, tables, groups, command)
    write_text(out / "tokens.html", heat_map_page(groups, tokenizer, command))


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
    write_table(out / "dtype.csv", dtype_table(lines))
    write_table(out / "checks.csv", checks_table(checked))


def checks_table(checked: Sequence[dict]) -> list[dict]:
    """Medians over groups of the costly checks, by name."""
    names = {(line["check"], line["reading"]) for line in checked}
    return [
        quantile_line(
            {"check": check, "reading": kind},
            middle([c["value"] for c in checked if (c["check"], c["reading"]) == (check, kind)]),
        )
        for check, kind in sorted(names)
    ]


def write_table(path: Path, table: Sequence[Mapping]) -> None:
    """Lines with the same columns; floats to four digits."""
    number = float | np.floating
    write_csv(path, [{k: f"{v:.4g}" if isinstance(v, number) else v for k, v in line.items()} for line in table])


def main() -> None:
    args = arguments("smollm2_weights", __doc__.partition("\n")[0], "tables, figures, heat map and samples")
    out = Path(args.out)
    # folders differ from machine to machine: the line in the figures has the files' names only
    files = ["--model", Path(args.model).name, "--questions", Path(args.questions).name]
    command = shlex.join(["python", "-m", "recipes.smollm2_weights", *files, "--groups", str(args.groups)])
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
