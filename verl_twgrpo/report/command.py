"""``verl-twgrpo report``: figures, tables and the token heat map of one run, or of several side by side."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable
from pathlib import Path

from verl_twgrpo.files import atomic_write, ensure_absent

FIGURES = {
    "reward.png": "Reward mean, and spread of rewards within a group (Fig. 3a)",
    "response_length.png": "Response length (Fig. 3b)",
    "weights_by_position.png": "Weight by position over training samples (Fig. A2)",
    "divergence.png": "Divergence D_t (Fig. A3)",
    "validation.png": "Accuracy on the validation set, strict and soft, with 95% intervals",
}
TABLE, TABLE_CSV, HEAT_MAP, PAGE = "table3.md", "table3.csv", "tokens.html", "README.md"
TASKS_TABLE, TASKS_CSV = "tasks.md", "tasks.csv"
TABLES = {
    TABLE: "Accuracy at the last validation (in the shape of Table 3, with 95% intervals)",
    TASKS_TABLE: "Measures of tasks at the first and the last validation, with 95% intervals",
}
"""Files of tables, and what they are; each is a CSV file too."""
SITE = "index.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Run directories and where to write."""
    parser.description = (
        "Shows what a run wrote: tw_grpo/step_*.parquet, rollouts/*.jsonl, validation/*.jsonl and TensorBoard event"
        " files in RUN_DIR. DIR/index.html is a page with every curve, group, response and validation, which opens from"
        " disk; pictures and tables stand beside it. What is not there is said, and the rest is drawn."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="run directories; several are drawn side by side")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for figures, tables and pages")
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="PARQUET",
        help="files of the questions and their videos, if they are not where the run's settings say",
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier report in that folder")


def run(args: argparse.Namespace) -> int:
    """Write the report. Raises ``ValueError`` for a folder that holds no run, ``FileExistsError`` without --force."""
    from tqdm import tqdm

    from . import figures, style
    from .heatmap import choose_groups, heat_map
    from .reading import read_runs, read_token_group
    from .site.build import Site
    from .tables import score_table, table3, task_table
    from .validations import Validation, Validations, measures_by_step

    out = Path(args.out)
    every_file = [out / name for name in (*FIGURES, TABLE, TABLE_CSV, TASKS_TABLE, TASKS_CSV, HEAT_MAP, PAGE, SITE)]
    ensure_absent(every_file, args.force)
    runs = read_runs(args.runs)
    # an older report's file that this one does not replace would pass for a part of it
    for path in every_file:
        path.unlink(missing_ok=True)
    command = shlex.join(["verl-twgrpo", "report", *args.runs, "--out", args.out])
    names = [one.label for one in runs]

    validations = Validations()
    scored: dict[str, dict[int, Validation]] = {}
    for one in tqdm(runs, desc="validation", unit="run", disable=None):
        scored[one.label] = validations.of(one)
        one.missing += [note for validation in scored[one.label].values() for note in validation.notes]
    overall = {
        name: {
            step: {benchmark: kinds["all"] for benchmark, kinds in one.letters.items()}
            for step, one in by_step.items()
            if one.letters
        }
        for name, by_step in scored.items()
    }
    drawn = []
    drawings = (
        lambda: figures.reward_figure(runs),
        lambda: figures.length_figure(runs),
        lambda: figures.weights_figure(runs),
        lambda: figures.divergence_figure(runs),
        lambda: figures.validation_figure(overall),
    )
    for name, draw in tqdm(zip(FIGURES, drawings, strict=True), desc="figures", total=len(FIGURES), disable=None):
        with style.look():
            figure = draw()
            if figure is not None:
                style.save(figure, out / name, names, command)
                drawn.append(name)
    last = {
        name: (max(steps), by_step[max(steps)].letters)
        for name, by_step in scored.items()
        if (steps := [step for step, one in by_step.items() if one.letters])
    }
    tables: dict[str, str] = {}
    if last:
        tables[TABLE], as_csv = table3(last)
        _write(out / TABLE_CSV, as_csv)
    if any(one.tasks for by_step in scored.values() for one in by_step.values()):
        tables[TASKS_TABLE], as_csv = task_table({name: measures_by_step(one) for name, one in scored.items()})
        _write(out / TASKS_CSV, as_csv)
    for name, text in tables.items():
        _write(out / name, text)
    chosen = [(one, group) for one in runs for group in choose_groups(one)]
    if chosen:
        token_groups = [
            read_token_group(*pair) for pair in tqdm(chosen, desc="token heat map", unit="group", disable=None)
        ]
        _write(out / HEAT_MAP, heat_map(token_groups, command))
    site = Site(out, runs, command, args.data, validations=validations)
    site.update(runs, _described(drawn, tables, bool(chosen)))
    missing = [f"{one.label}: {reason}" for one in runs for reason in one.missing] + site.missing
    missing += [f"{name}: no run has the data for it" for name in FIGURES if name not in drawn]
    _write(out / PAGE, _page(names, command, drawn, tables, score_table(runs), bool(chosen), missing))
    for reason in missing:
        print(f"missing: {reason}")
    print(f"written: {out / PAGE}, {len(drawn)} figures{', ' + HEAT_MAP if chosen else ''}")
    print(f"the page: {out / SITE}")
    return 0


def _described(drawn: list[str], tables: Iterable[str], heat_map: bool) -> list[tuple[str, str]]:
    """Files beside the page, and what they are."""
    files = [(name, FIGURES[name]) for name in drawn]
    for name in tables:
        files += [(name, TABLES[name]), (Path(name).with_suffix(".csv").name, "the same as CSV")]
    if heat_map:
        files += [(HEAT_MAP, "Token weights of a few groups, in one file")]
    return files


def _page(
    names: list[str],
    command: str,
    drawn: list[str],
    tables: dict[str, str],
    scores: str,
    heat_map: bool,
    missing: list[str],
) -> str:
    parts = [f"# Report: {', '.join(names)}\n", f"    {command}\n"]
    for name, table in tables.items():
        parts += [f"## {TABLES[name]}\n", table]
    if heat_map:
        parts += [f"## Tokens\n\n[{HEAT_MAP}]({HEAT_MAP}): every token shaded by its weight; open it in a browser.\n"]
    for name in drawn:
        parts += [f"## {FIGURES[name]}\n\n![{FIGURES[name]}]({name})\n"]
    if scores:
        parts += ["## Scores of training, first → last step\n", scores]
    if missing:
        parts += ["## Missing\n\n" + "".join(f"- {' '.join(reason.split())}\n" for reason in missing)]
    return "\n".join(parts)


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
