"""Read what a run left behind: dumps of the token weights, logged metrics, rollouts and validation answers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from tqdm import tqdm

from verl_twgrpo.rows import parse_key, rows_by_group
from verl_twgrpo.run_folder import event_files, read_scalars

from .soundness import sound_dumps

SERIES_COLUMNS = ("step", "group", "reward", "weight", "divergence")
"""What the figures need of a step's dump."""

TOKEN_COLUMNS = (
    *("group", "id", "ground_truth", "reward", "accuracy", "soft_accuracy", "format", "text"),
    *("tokens", "weight", "divergence", "entropy", "log_prob"),
)
"""What the token heat map needs of it."""

SCORES = "reward/"
"""What the names of logged scores begin with: ``reward/{data source}/{task}/{score}``."""


@dataclass(frozen=True)
class Group:
    """The responses to one prompt in one step, without its tokens: those of a long run would not fit into memory.

    weights_T: mean of the responses that have a position, T = max(lengths_G). divergence_T: by position; NaN where no
    head pass ran.
    """

    step: int
    uid: str
    rewards_G: np.ndarray
    lengths_G: np.ndarray
    weights_T: np.ndarray
    divergence_T: np.ndarray


@dataclass
class Run:
    """One run. dumps: by step, those that can be drawn. scalars: metric -> step -> value.

    rollout_rewards: step -> group -> rewards. missing: in words.
    """

    label: str
    folder: Path
    dumps: dict[int, Path] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    scalars: dict[str, dict[int, float]] = field(default_factory=dict)
    rollout_rewards: dict[int, dict[str, list[float]]] = field(default_factory=dict)
    validation: dict[int, Path] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def read_runs(folders: Sequence[str | Path], quiet: bool = False) -> list[Run]:
    """Read run directories, each named by the part of its path that tells it from the others; quiet: no progress bars.

    Raises ``ValueError`` for a folder that holds nothing of a run, or a dump that lacks a column, naming it.
    """
    paths = [Path(folder) for folder in folders]
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"{path}: no such run directory")
    return [read_run(path, label, quiet) for path, label in zip(paths, labels(paths), strict=True)]


def labels(paths: Sequence[Path]) -> list[str]:
    """Short names of runs: the last part of each path, and as many before it as tell the runs apart.

    Raises ``ValueError`` if a run is given twice.
    """
    parts = [path.resolve().parts[1:] for path in paths]
    if len(set(parts)) < len(parts):
        raise ValueError(f"the same run is given twice: {', '.join(map(str, paths))}")
    length = next(
        (k for k in range(1, max(map(len, parts)) + 1) if len({part[-k:] for part in parts}) == len(parts)), 1
    )
    # recipes write to NAME/run: such a last part says nothing
    length += any(part[-length:] == ("run",) for part in parts)
    return ["/".join(part[-length:]) for part in parts]


def read_run(folder: Path, label: str, quiet: bool = False) -> Run:
    """Read one run directory; what is not there is said in ``missing``. Raises ``ValueError`` if nothing is."""
    run = Run(label, folder)
    dumps = run.dumps = sound_dumps(step_files(folder / "tw_grpo", "step_*.parquet"), run.missing)
    rollouts = step_files(folder / "rollouts", "*.jsonl")
    events = event_files(folder)
    run.validation = step_files(folder / "validation", "*.jsonl")
    if not (dumps or rollouts or events or run.validation):
        if run.missing:
            raise ValueError(run.missing[0])
        raise ValueError(
            f"{folder}: nothing of a run: no tw_grpo/step_*.parquet, rollouts/*.jsonl, validation/*.jsonl, nor"
            " TensorBoard event files"
        )
    for path in tqdm(list(dumps.values()), desc=f"{label}: dumps", unit="step", disable=quiet or None):
        groups = read_groups(path)
        run.groups += groups
        if spoilt := sum(bool(np.isnan(group.weights_T).any()) for group in groups):
            run.missing.append(
                f"{path}: of {spoilt} groups some weights are not a number (tw_grpo/nan_tokens counts them)"
            )
    if events:
        run.scalars = _read_scalars(folder, run.missing)
    if "tw_grpo/group_reward_std" not in run.scalars and not run.groups:
        for step, path in tqdm(rollouts.items(), desc=f"{label}: rollouts", unit="step", disable=quiet or None):
            run.rollout_rewards[step] = _read_rollout_rewards(path, run.missing)
    run.missing += [
        reason
        for there, reason in (
            (dumps, "no tw_grpo/step_*.parquet (algorithm.tw_grpo.dump_dir): no weights by position, no heat map"),
            (events, "no TensorBoard event files (trainer.logger, TENSORBOARD_DIR)"),
            (rollouts, "no rollouts/*.jsonl (trainer.rollout_data_dir): no prompts in the heat map"),
            (run.validation, "no validation/*.jsonl (trainer.validation_data_dir): no accuracies"),
        )
        if not there
    ]
    return run


def step_files(folder: Path, pattern: str) -> dict[int, Path]:
    """The files of a folder by the step in their names (``4.jsonl``, ``step_000004.parquet``), in order."""
    numbered = {path.stem.removeprefix("step_"): path for path in folder.glob(pattern)}
    return dict(sorted((int(number), path) for number, path in numbered.items() if number.isdecimal()))


def read_table(path: Path, columns: Iterable[str]) -> pyarrow.Table:
    """Some columns of a step's dump. Raises ``ValueError`` for a file that is none or lacks one, naming it."""
    columns = list(columns)
    try:
        present = set(pyarrow.parquet.read_schema(path).names)
        missing = [name for name in columns if name not in present]
        if missing:
            raise ValueError(f"{path}: column {', '.join(missing)} is missing: not a dump of token weights")
        return pyarrow.parquet.read_table(path, columns=columns)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: not a parquet file ({error})") from None


def read_groups(path: Path) -> list[Group]:
    """The groups of one step's dump, in its order."""
    table = read_table(path, SERIES_COLUMNS)
    steps, rewards = table["step"].to_numpy(), table["reward"].to_numpy()
    weights = [np.asarray(cell.values.to_numpy(zero_copy_only=False), dtype=np.float32) for cell in table["weight"]]
    lengths = np.array([len(cell) for cell in weights])
    groups = []
    for uid, rows in rows_by_group(table["group"].to_pylist()).items():
        # a divergence belongs to the position, so the longest response has them all
        longest = rows[int(np.argmax(lengths[rows]))]
        divergence = table["divergence"][longest].as_py()
        divergence_T = np.full(lengths[longest], np.nan) if divergence is None else divergence
        groups.append(
            Group(
                int(steps[longest]),
                uid,
                rewards[rows],
                lengths[rows],
                mean_by_position([weights[row] for row in rows]),
                np.asarray(divergence_T, dtype=np.float32),
            )
        )
    return groups


def mean_by_position(weights_G: Sequence[np.ndarray]) -> np.ndarray:
    """Of weights by token, an array a response: the mean of those responses that have a position, by position."""
    padded_GT: np.ndarray = np.full((len(weights_G), max(map(len, weights_G))), np.nan, dtype=np.float32)
    for response, weights_L in enumerate(weights_G):
        padded_GT[response, : len(weights_L)] = weights_L
    # a position past every response of the group cannot be: the longest has it
    means_T = np.nanmean(padded_GT, axis=0)
    # what is not a number must not vanish in a mean
    for weights_L in weights_G:
        means_T[: len(weights_L)][np.isnan(weights_L)] = np.nan
    return means_T


@dataclass(frozen=True)
class Response:
    """One response with its values by token, T of each. scores: every number of its task, empty in an older dump."""

    reward: float
    accuracy: float | None
    soft_accuracy: float | None
    format: float | None
    text: str
    tokens: list[str]
    weight: list[float]
    divergence: list[float]
    entropy: list[float]
    log_prob: list[float]
    scores: dict[str, float] = field(default_factory=dict)
    label: str = ""


@dataclass(frozen=True)
class TokenGroup:
    """The responses to one prompt as the token heat map shows them; prompt is None where no rollout file has it.

    compared: how often each response stands there, one after the other, with other weights and labels.
    """

    run: str
    step: int
    id: str
    ground_truth: str
    prompt: str | None
    responses: list[Response]
    compared: int = 1


def read_token_group(run: Run, group: Group) -> TokenGroup:
    """All of one group, from the dump of its step and verl's rollout file."""
    path = run.folder / "tw_grpo" / f"step_{group.step:06d}.parquet"
    later = [name for name in ("scores",) if name in pyarrow.parquet.read_schema(path).names]
    rows = [row for row in read_table(path, (*TOKEN_COLUMNS, *later)).to_pylist() if row["group"] == group.uid]
    for row in rows:
        row["scores"] = dict(row.get("scores") or ())
    fields = Response.__dataclass_fields__
    return TokenGroup(
        run=run.label,
        step=group.step,
        id=rows[0]["id"],
        ground_truth=rows[0]["ground_truth"],
        prompt=_read_prompt(run.folder / "rollouts" / f"{group.step}.jsonl", group.uid),
        responses=[
            Response(
                **{name: row[name] for name in fields if name in row}
                # null where no head pass ran
                | {"divergence": row["divergence"] or [math.nan] * len(row["tokens"])}
            )
            for row in rows
        ],
    )


def _read_scalars(folder: Path, missing: list[str]) -> dict[str, dict[int, float]]:
    try:
        return read_scalars(folder)
    except ImportError:
        missing.append("the package tensorboard is not installed: its event files were not read")
        return {}


def _read_rollout_rewards(path: Path, missing: list[str]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    rows, unreadable = read_rollouts(path)
    for row in rows:
        groups.setdefault(row.group, []).append(row.score)
    if unreadable:
        missing.append(f"{path}: {unreadable} lines are not rows of verl's rollout dump and were left out")
    # verl's synthetic padding rows are alone in their groups
    return {uid: rewards for uid, rewards in groups.items() if len(rewards) > 1}


def _read_prompt(path: Path, uid: str) -> str | None:
    return next((row.prompt for row in read_rollouts(path)[0] if row.group == uid), None)


@dataclass(frozen=True)
class Rollout:
    """A row of verl's rollout file. group: its prompt's uid."""

    group: str
    prompt: str
    score: float


def read_rollouts(path: Path) -> tuple[list[Rollout], int]:
    """The rows of one step's rollout file, and how many lines are none: a killed run leaves a line half written.

    No rows where there is no such file.
    """
    rows: list[Rollout] = []
    unreadable = 0
    if not path.is_file():
        return rows, unreadable
    for line in filter(str.strip, path.read_text(encoding="utf-8", errors="replace").split("\n")):
        try:
            row = json.loads(line)
            rows.append(Rollout(parse_key(str(row["uid"])).uid, str(row["input"]), float(row["score"])))
        except (ValueError, KeyError, TypeError):
            unreadable += 1
    return rows, unreadable
