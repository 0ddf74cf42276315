"""Writes the page of some runs: its frame and code once, the data of each step as that step is there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from tqdm import tqdm

from verl_twgrpo import __version__
from verl_twgrpo.files import atomic_write
from verl_twgrpo.report.reading import Run
from verl_twgrpo.report.validations import Validations

from .frames import FrameStrips
from .groups import list_entry, read_step
from .overview import charts
from .questions import Question, read_questions
from .sampling import Sample, plan_sample, shown_groups, shown_steps
from .script import write_call
from .settings import differences, file_names, read_settings
from .validation import validation_table

PAGE, DATA, FRAMES, CODE = "index.html", "data", "frames", "code"
SCRIPTS = (
    "vendor/uPlot.iife.min.js",
    *(f"static/{name}.js" for name in ("dom", "plots", "list", "group", "validation", "main")),
)
STYLES = ("vendor/uPlot.min.css", "static/style.css")
LICENCE = "vendor/uPlot.LICENSE"

MB = 1_000_000
# together below 60 MB; more groups would be more than twenty seconds of writing
GROUPS_BUDGET, FRAMES_BUDGET, TEXTS_BUDGET = 20 * MB, 16 * MB, 8 * MB


class Site:
    """The page of ``runs`` in the folder ``out``; ``update`` writes what came since the last time.

    command: said at its end. questions: parquet files, where the settings of a run do not name them. live: the page
    looks for newer data while it is open, over HTTP. validations: scores that are there already.
    """

    def __init__(
        self,
        out: Path,
        runs: Sequence[Run],
        command: str,
        questions: Iterable[str] = (),
        live: bool = False,
        validations: Validations | None = None,
    ) -> None:
        self._validations = validations or Validations()
        self._out, self._command, self._live = out, command, live
        self._settings = [read_settings(run.folder) for run in runs]
        self.missing: list[str] = []
        named = [
            name
            for run, settings in zip(runs, self._settings, strict=True)
            for key in ("data.train_files", "data.val_files")
            for name in file_names(settings.get(key)) or _beside(run.folder, key)
        ]
        self._questions, missing = read_questions([*questions, *named])
        self.missing += missing
        caches = [Path(s["data.frame_cache"]) for s in self._settings if s.get("data.frame_cache")]
        vision = next(filter(None, map(_vision_config, self._settings)), {})
        self._strips = FrameStrips(
            out / FRAMES,
            caches,
            vision.get("tokens_per_second"),
            int(vision.get("patch_size") or 14),
            FRAMES_BUDGET,
        )
        self._samples: list[Sample] = []
        self._entries: list[dict[int, list[dict[str, Any]]]] = [{} for _ in runs]
        self._totals: list[dict[int, int]] = [{} for _ in runs]
        self._seen: dict[Path, tuple[int, int]] = {}
        self._count = 0
        self._write_code()

    def update(self, runs: Sequence[Run], pictures: Iterable[tuple[str, str]] = ()) -> None:
        """Write the data of ``runs``: of a step, only if its file is new. pictures: further files and what they are."""
        steps = [run.dumps for run in runs]
        if not self._samples:
            share = GROUPS_BUDGET // len(runs)
            self._samples = [
                plan_sample([*by_step.values()] * _repeats(by_step, settings), share) if by_step else Sample()
                for by_step, settings in zip(steps, self._settings, strict=True)
            ]
        for number, (run, by_step, sample) in enumerate(zip(runs, steps, self._samples, strict=True)):
            wanted = shown_steps(list(by_step), sample)
            for step in tqdm(wanted, desc=f"{run.label}: groups", unit="step", disable=True if self._live else None):
                self._step(number, step, by_step[step], sample)
        data = self._out / DATA
        write_call(data / "overview.js", "overview", self._overview(runs, pictures))
        texts = TEXTS_BUDGET // len(runs)
        tables = [validation_table(run.validation, self._questions, texts, self._validations.of(run)) for run in runs]
        write_call(data / "validation.js", "validation", tables)
        entries = [[entry for step in sorted(by_step) for entry in by_step[step]] for by_step in self._entries]
        write_call(data / "groups.js", "groups", entries)
        # last: who sees it finds the rest there
        self._count += 1
        write_call(data / "version.js", "version", self._count)

    def _step(self, number: int, step: int, path: Path, sample: Sample) -> None:
        try:
            state = path.stat()
            changed = (state.st_mtime_ns, state.st_size)
            if self._seen.get(path) == changed:
                return
            choose = partial(shown_groups, per_step=sample.per_step)
            groups, self._totals[number][step] = read_step(path, choose, self._questions)
        except (ValueError, OSError) as error:
            self._say(f"{path}: not shown ({error})")
            return
        self._seen[path] = changed
        for group in groups:
            group["frames"] = self._frames(self._questions.get(group["id"]))
        tokens: dict[str, int] = {}
        for group in groups:
            for response in group["responses"]:
                response["tokens"] = [tokens.setdefault(token, len(tokens)) for token in response["tokens"]]
        self._entries[number][step] = [list_entry(step, group) for group in groups]
        write_call(
            self._out / DATA / f"run{number}" / f"step_{step:06d}.js", "step", number, step, list(tokens), groups
        )

    def _say(self, sentence: str) -> None:
        if sentence not in self.missing:
            self.missing.append(sentence)

    def _frames(self, question: Question | None) -> list[dict[str, Any]]:
        if question is None:
            return [{"missing": "no data file names this question's video"}]
        return [self._strips.strip(video) for video in question.videos]

    def _overview(self, runs: Sequence[Run], pictures: Iterable[tuple[str, str]]) -> dict[str, Any]:
        return {
            "runs": [
                {"label": run.label, "sample": self._said(number), "steps": len(self._totals[number])}
                for number, run in enumerate(runs)
            ],
            "charts": charts(runs),
            "settings": differences(self._settings) if len(runs) > 1 else [],
            "unknown_settings": [run.label for run, settings in zip(runs, self._settings, strict=True) if not settings],
            "pictures": [list(pair) for pair in pictures],
            "missing": [*(f"{run.label}: {reason}" for run in runs for reason in run.missing), *self.missing],
            "command": self._command,
        }

    def _said(self, number: int) -> str:
        """How many of the run's groups the page has, in words; "" if it has them all."""
        sample, totals = self._samples[number], self._totals[number]
        if sample.every == 1 and (sample.per_step is None or max(totals.values(), default=0) <= sample.per_step):
            return ""
        steps = "every step" if sample.every == 1 else f"one step in {sample.every}"
        groups = f"{sample.per_step or 'all'} of {max(totals.values(), default=0)} groups"
        return f"{groups} of {steps}, drawn by a hash of the question, to keep this page small"

    def _write_code(self) -> None:
        from jinja2 import Environment, PackageLoader, StrictUndefined

        source = files("verl_twgrpo.report.site")
        for name in (*SCRIPTS, *STYLES, LICENCE):
            _write(self._out / CODE / Path(name).name, source.joinpath(name).read_bytes())
        environment = Environment(
            loader=PackageLoader("verl_twgrpo.report.site", "static"), autoescape=True, undefined=StrictUndefined
        )
        page = environment.get_template("index.html.j2").render(
            scripts=[f"{CODE}/{Path(name).name}" for name in SCRIPTS],
            styles=[f"{CODE}/{Path(name).name}" for name in STYLES],
            data=[f"{DATA}/{name}.js" for name in ("overview", "groups", "validation", "version")],
            live=self._live,
            version=__version__,
        )
        _write(self._out / PAGE, page.encode())


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as part:
        part.write_bytes(content)


def _repeats(by_step: Mapping[int, Path], settings: Mapping[str, Any]) -> int:
    """How often the files there are now go into those that the run will have, so that a live page stays small too."""
    total = settings.get("trainer.total_training_steps")
    return max(1, -(-total // len(by_step))) if isinstance(total, int) else 1


def _beside(run: Path, key: str) -> list[str]:
    """Where the demo and the study keep their data, for runs that did not write their settings."""
    name = {"data.train_files": "train.parquet", "data.val_files": "validation.parquet"}[key]
    path = run.parent / "data" / name
    return [str(path)] if path.is_file() else []


def _vision_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    path = Path(str(settings.get("actor_rollout_ref.model.path", ""))) / "config.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")).get("vision_config") or {})
    except (OSError, ValueError, AttributeError):
        return {}
