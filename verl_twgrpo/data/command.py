"""``verl-twgrpo data``: from raw annotations to checked parquet files and prepared frames."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import datasets

from verl_twgrpo.data.parquet import TOKEN_PIXELS, FrameLimits
from verl_twgrpo.data.prompts import PROMPT_OF_SOURCE, PROMPTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The four steps as subcommands of ``parser``."""
    steps = parser.add_subparsers(dest="step", required=True)

    convert = steps.add_parser("convert", help="annotations and a folder of videos to a parquet file")
    convert.add_argument("--source", required=True, choices=list(PROMPT_OF_SOURCE))
    convert.add_argument("--annotations", help=".json, .jsonl or .parquet file, or hub data set owner/name[:config]")
    convert.add_argument("--videos", help="folder that the videos lie in, at any depth")
    convert.add_argument("--out", required=True, help="folder for <source>-<split>.parquet and its reports")
    convert.add_argument("--split", help="name of the split (default: the source's usual one)")
    convert.add_argument("--nframes", type=int, help="frames of a video, spread evenly (default 16)")
    convert.add_argument("--max-frame-tokens", type=int, default=128, help="largest frame, in units of 28x28 pixels")
    convert.add_argument("--min-frame-tokens", type=int, default=4, help="smaller frames are enlarged to this")
    convert.add_argument("--prompt", choices=list(PROMPTS), help="prompt text (default: the paper's for the source)")
    convert.add_argument("--invert", action="store_true", help="question-answer inversion in one go")
    _add_inversion(convert)
    _add_common(convert)
    convert.set_defaults(run_step=_convert)

    invert = steps.add_parser("invert", help="question-answer inversion of a converted file")
    invert.add_argument("file", help="parquet file that `data convert` wrote")
    invert.add_argument("--out", required=True, help="parquet file to write; its reports go beside it")
    invert.add_argument("--prompt", choices=list(PROMPTS), help="prompt text (default: any number of answers)")
    _add_inversion(invert)
    _add_common(invert)
    invert.set_defaults(run_step=_invert)

    frames = steps.add_parser("frames", help="decode the videos of parquet files into a frame cache")
    frames.add_argument("files", nargs="+", help="parquet files")
    frames.add_argument("--cache", required=True, help="folder of the frame cache")
    frames.add_argument("--keep-corrupt", action="store_true", help="use damaged videos too; each is noted")
    frames.add_argument("--ray", action="store_true", help="spread over a Ray cluster that sees videos and cache")
    _add_patch_size(frames)
    _add_common(frames)
    frames.set_defaults(run_step=_frames)

    check = steps.add_parser("check", help="find what would go wrong in training; exit code 1 if something would")
    check.add_argument("files", nargs="+", help="parquet files to train on")
    check.add_argument("--validation", nargs="*", default=[], help="parquet files to validate on")
    check.add_argument("--cache", help="frame cache that training will read")
    check.add_argument("--model", help="checkpoint whose processor counts the prompts' tokens")
    check.add_argument("--max-prompt-length", type=int, default=4096, help="longest prompt in tokens, video included")
    check.add_argument("--fix", metavar="DIR", help="write files without the rows found, and a list of those; exit 0")
    _add_patch_size(check)
    _add_common(check)
    check.set_defaults(run_step=_check)


def run(args: argparse.Namespace) -> int:
    """Run one step; 0 if all is well, 1 if videos failed or ``check`` found something."""
    datasets.disable_progress_bars()  # its bars say nothing that matters here
    return args.run_step(args)


def _add_inversion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="seed of the inversion")
    parser.add_argument("--paper-compatible", action="store_true", help="invert by the released rules, leaks included")


def _add_patch_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--patch-size", type=int, default=14, help="the model's patch size (Qwen2.5-VL: 14)")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads")
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")


def _convert(args: argparse.Namespace) -> int:
    from verl_twgrpo.data.convert import convert
    from verl_twgrpo.data.parquet import write_parquet
    from verl_twgrpo.data.sources import SOURCES
    from verl_twgrpo.files import ensure_absent

    if args.source == "mini_clevrer":
        raise ValueError(
            "--source mini_clevrer: its questions and videos are made, not converted;"
            " run `verl-twgrpo demo prepare --data-only --out DIR`"
        )
    split = args.split or SOURCES[args.source].SPLIT
    limits = FrameLimits(
        nframes=args.nframes or 16,
        max_pixels=args.max_frame_tokens * TOKEN_PIXELS,
        min_pixels=args.min_frame_tokens * TOKEN_PIXELS,
    )
    out = Path(args.out) / f"{args.source}-{split}.parquet"
    ensure_absent([out], args.force)
    for name in ("annotations", "videos"):
        if not getattr(args, name):
            raise ValueError(f"--{name} is needed for --source {args.source}")
    converted = convert(args.source, args.annotations, args.videos, split, args.workers)
    items = converted.items
    for reason, number in converted.counts.most_common():
        print(f"left out: {number} x {reason}")
    left_out = [{"id": key, "reason": reason} for key, reason in converted.left_out]
    _write_json(left_out, out.with_suffix(".left_out.json"))
    if args.invert:
        items = _inverted(items, args, out)
    write_parquet(items, out, limits=limits, prompt=args.prompt, force=args.force)
    print(f"{out}: {len(items)} items")
    return 0


def _invert(args: argparse.Namespace) -> int:
    from verl_twgrpo.data.parquet import read_parquet, read_rows, to_row, write_rows
    from verl_twgrpo.files import ensure_absent

    out = Path(args.out)
    ensure_absent([out], args.force)
    # each row keeps the frame limits that it was converted with
    limits = [
        FrameLimits(**{field.name: row["videos"][0][field.name] for field in dataclasses.fields(FrameLimits)})
        for row in read_rows(args.file)
    ]
    items = _inverted(read_parquet(args.file), args, out)
    rows = [to_row(item, k, limits[k], args.prompt) for k, item in enumerate(items)]
    write_rows(rows, out, force=args.force)
    print(f"{out}: {len(rows)} items")
    return 0


def _inverted(items: list, args: argparse.Namespace, out: Path) -> list:
    """The items after inversion; the audit is written beside ``out`` and its first table printed."""
    from verl_twgrpo.data.audit import audit, to_markdown
    from verl_twgrpo.data.inversion import invert_all
    from verl_twgrpo.files import atomic_write
    from verl_twgrpo.rewards import validate

    outcomes = invert_all(items, seed=args.seed, paper_compatible=args.paper_compatible)
    validate(outcome.after for outcome in outcomes)
    report = audit(outcomes)
    _write_json(report, out.with_suffix(".audit.json"))
    page = to_markdown(report)
    with atomic_write(out.with_suffix(".audit.md")) as part:
        part.write_text(page, encoding="utf-8")
    print(page.split("## ")[0].strip())
    print(f"audit: {out.with_suffix('.audit.md')}")
    return [outcome.after for outcome in outcomes]


def _frames(args: argparse.Namespace) -> int:
    from verl_twgrpo.data.parquet import read_rows
    from verl_twgrpo.video.fill import prepare_all, report, videos_of

    videos = videos_of(row for file in args.files for row in read_rows(file))
    results = prepare_all(
        videos,
        args.cache,
        image_patch_size=args.patch_size,
        workers=args.workers,
        ray=args.ray,
        keep_corrupt=args.keep_corrupt,
    )
    summary = report(results)
    _write_json(summary, Path(args.cache) / "last_run.json")
    for result in results:
        for note in result.notes:
            print(f"note: {result.video}: {note}")
        if result.state == "failed":
            print(f"failed: {result.video}: {result.reason}")
    print(", ".join(f"{summary[key]} {key}" for key in ("videos", "decoded", "cached", "failed")))
    return 1 if summary["failed"] else 0


def _check(args: argparse.Namespace) -> int:
    from verl_twgrpo.data.check import check, prompt_counter, table
    from verl_twgrpo.data.parquet import read_rows
    from verl_twgrpo.video.cache import FrameCache

    training = {file: read_rows(file) for file in args.files}
    validation = {file: read_rows(file) for file in args.validation}
    findings = check(
        training,
        validation,
        cache=FrameCache(args.cache, args.patch_size) if args.cache else None,
        prompt_length=prompt_counter(args.model) if args.model else None,
        max_prompt_length=args.max_prompt_length,
        image_patch_size=args.patch_size,
        workers=args.workers,
    )
    rows = sum(len(part) for part in (*training.values(), *validation.values()))
    if not args.model:
        print("prompt lengths were not checked: give --model")
    print(table(findings) if findings else f"{rows} rows, nothing found")
    if args.fix:
        _write_fixed({**training, **validation}, findings, Path(args.fix), args.force)
        return 0
    return 1 if findings else 0


def _write_fixed(files: dict[str, list], findings: list, folder: Path, force: bool) -> None:
    from verl_twgrpo.data.parquet import write_rows
    from verl_twgrpo.files import ensure_absent

    names = [Path(file).name for file in files]
    if len(set(names)) < len(names):
        raise ValueError(f"--fix {folder}: two of the files have the same name")
    ensure_absent([folder / name for name in names], force)
    for file, rows in files.items():
        found = [finding for finding in findings if finding.file == file]
        bad = {finding.row for finding in found}
        out = folder / Path(file).name
        write_rows([row for number, row in enumerate(rows) if number not in bad], out, force=force)
        _write_json([dataclasses.asdict(finding) for finding in found], out.with_suffix(".left_out.json"))
        print(f"{out}: {len(rows) - len(bad)} of {len(rows)} rows; left out: {out.with_suffix('.left_out.json')}")


def _write_json(value: Any, path: Path) -> None:
    from verl_twgrpo.files import atomic_write

    with atomic_write(path) as part:
        part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
