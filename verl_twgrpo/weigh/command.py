"""``verl-twgrpo weigh RUN --with NAME,NAME``: what other weightings would have made of a run's responses."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RUNS_OWN = "as trained"
DEFAULT_STEPS = 20
SHOWN_RESPONSES = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run, presets, and where to write."""
    parser.description = (
        "Recomputes token weightings from RUN_DIR/tw_grpo/step_*.parquet (algorithm.tw_grpo.dump_dir) and compares them"
        " with the weights of the run and with each other: correlations, shares and signals by class, heat maps."
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="run directory")
    parser.add_argument(
        "--with",
        dest="names",
        required=True,
        metavar="NAME,...",
        help="presets, as algorithm=NAME selects them; settings behind it: top_entropy:keep=0.1",
    )
    parser.add_argument(
        "--steps", type=int, default=DEFAULT_STEPS, help=f"steps to read, evenly spread ({DEFAULT_STEPS}); 0: all"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write tables (CSV) and heat maps into this folder")
    parser.add_argument("--force", action="store_true", help="replace what an earlier call wrote there")


def run(args: argparse.Namespace) -> int:
    """Print the tables, and write them with heat maps where ``--out`` says.

    Raises:
        ValueError: no dump there, an unknown preset, or one that reads what this dump does not have.
        FileExistsError: without --force.
    """
    from verl_twgrpo.evaluation.tables import markdown
    from verl_twgrpo.files import atomic_write, ensure_absent, write_csv
    from verl_twgrpo.progress import Progress
    from verl_twgrpo.report.reading import step_files
    from verl_twgrpo.report.soundness import sound_dumps

    from .stored import run_settings, stored_groups
    from .tables import class_shares, correlations, signal_means

    folder = args.run_dir / "tw_grpo" if (args.run_dir / "tw_grpo").is_dir() else args.run_dir
    if args.steps < 0:
        raise ValueError(f"--steps {args.steps}: need 0 (all) or more")
    if args.out is not None:
        written = [args.out / name for name in ("correlations.csv", "classes.csv", "signals.csv", "tokens.html")]
        ensure_absent(written, args.force)
    problems: list[str] = []
    dumps = sound_dumps(step_files(folder, "step_*.parquet"), problems)
    for problem in problems:
        print(f"left out: {problem}")
    if not dumps:
        raise ValueError(
            f"{folder}: no step_*.parquet that can be read: train with algorithm.tw_grpo.dump_dir={folder}"
        )
    names = args.names.split(",")
    if len(set(names)) < len(names):
        raise ValueError(f"--with {args.names}: a preset stands there twice")
    chosen = [_settings_of(name) for name in names]
    trained = run_settings(folder)
    stored = []
    with Progress(len(paths := spread(list(dumps.values()), args.steps)), "dumps", "step") as progress:
        for path in paths:
            stored += stored_groups(path, trained)
            progress.advance()
    weights = {RUNS_OWN: [[weights_L.numpy() for weights_L in one.trained] for one in stored]}
    for name, settings in zip(names, chosen, strict=True):
        weights[name] = _weighed(name, settings, stored, trained)
    tables = {"correlations": correlations(weights, stored), "classes": class_shares(weights, stored)}
    if signals := signal_means(stored):
        tables["signals"] = signals
    responses = sum(len(one.rows) for one in stored)
    print(f"{len(paths)} of {len(dumps)} steps, {len(stored)} groups, {responses} responses\n")
    for lines in tables.values():
        print(markdown(list(lines[0]), [[_cell(value) for value in line.values()] for line in lines]))
    if args.out is not None:
        for name, lines in tables.items():
            write_csv(args.out / f"{name}.csv", lines)
        command = shlex.join(["verl-twgrpo", "weigh", str(args.run_dir), "--with", args.names, "--out", str(args.out)])
        with atomic_write(args.out / "tokens.html") as part:
            part.write_text(_heat_maps(weights, stored, command), encoding="utf-8")
        print(f"written in {args.out}: {', '.join(f'{name}.csv' for name in tables)}, tokens.html")
    return 0


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """``count`` of the paths, evenly spread, first and last among them; all for 0 or where there are no more."""
    if not count or len(paths) <= count:
        return list(paths)
    if count == 1:
        return [paths[-1]]
    return [paths[round(k * (len(paths) - 1) / (count - 1))] for k in range(count)]


def _settings_of(name: str) -> Any:
    from verl_twgrpo.planning.command import compose_run
    from verl_twgrpo.training.checks.settings import read_settings

    preset, *words = name.split(":")
    overrides = [f"algorithm={preset}", *(f"++algorithm.tw_grpo.settings.{word}" for word in words)]
    try:
        config = compose_run(overrides)
        return read_settings(config.algorithm.tw_grpo)
    except ValueError as error:
        raise ValueError(f"--with {name}: {error}") from None


def _weighed(name: str, settings: Any, stored: Sequence[Any], trained: Any) -> list[list[Any]]:
    """One weighting's weights of all stored groups, step by step, as training makes them."""
    from verl_twgrpo.algorithm.weightings import weigh_groups

    weighting = settings.make_weighting()
    before = trained.make_weighting().divergence if trained is not None else None
    if None not in (weighting.divergence, before) and weighting.divergence != before:
        raise ValueError(
            f"--with {name}: reads divergence {weighting.divergence}, and this run's dump has {before}: the one "
            "cannot be had from the other"
        )
    by_step: dict[int, list[Any]] = {}
    for one in stored:
        for column in weighting.read_columns():
            if column not in one.group.columns:
                raise ValueError(
                    f"--with {name}: reads {column}, which step {one.step} of this run's dump does not have; it is "
                    f"there where a run was trained with a weighting that reads it (algorithm={name.partition(':')[0]})"
                )
        by_step.setdefault(one.step, []).append(one.group)
    for groups in by_step.values():
        weigh_groups(weighting, groups, settings.normalise, settings.control, settings.seed)
    return [[weights_L.numpy() for weights_L in one.group.weights] for one in stored]


def _heat_maps(weights: Any, stored: Sequence[Any], command: str) -> str:
    """Of the first, the middle and the last step the group whose rewards differ most: responses by every weighting."""
    from verl_twgrpo.report.heatmap import heat_map
    from verl_twgrpo.report.reading import Response, TokenGroup

    steps = sorted({one.step for one in stored})
    groups = []
    for step in dict.fromkeys((steps[0], steps[len(steps) // 2], steps[-1])):
        of_step = [k for k, one in enumerate(stored) if one.step == step]
        k = max(of_step, key=lambda k: _range(row["reward"] for row in stored[k].rows))
        responses = []
        for place, row in enumerate(stored[k].rows[:SHOWN_RESPONSES]):
            for name, of_groups in weights.items():
                values = {field: row.get(field) for field in Response.__dataclass_fields__ if field in row}
                values |= {
                    "weight": of_groups[k][place].tolist(),
                    "scores": dict(row.get("scores") or ()),
                    "label": name,
                }
                values["divergence"] = row["divergence"] or [float("nan")] * len(row["tokens"])
                responses.append(Response(**values))
        first = stored[k].rows[0]
        groups.append(TokenGroup("", step, first["id"], first["ground_truth"], None, responses, compared=len(weights)))
    return heat_map(groups, command)


def _range(values: Any) -> float:
    values = list(values)
    return max(values) - min(values)


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
