"""``verl-twgrpo data``: from raw annotations to checked parquet files and prepared frames."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets

from verl_twgrpo.data.parquet import TOKEN_PIXELS, FrameLimits
from verl_twgrpo.data.prompts import PROMPTS
from verl_twgrpo.data.sources import BROKEN, SOURCES
from verl_twgrpo.progress import progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The steps as subcommands of ``parser``."""
    steps = parser.add_subparsers(dest="step", required=True)

    convert = steps.add_parser("convert", help="annotations and a folder of videos to a parquet file")
    convert.add_argument("--source", required=True, choices=[*SOURCES, *BROKEN, "mini_clevrer"])
    convert.add_argument("--annotations", help=".json, .jsonl or .parquet file, or hub data set owner/name[:config]")
    convert.add_argument("--videos", help="folder that the videos lie in, at any depth")
    convert.add_argument("--out", required=True, help="folder for <source>-<split>.parquet and its reports")
    convert.add_argument("--split", help="name of the split (default: the source's usual one)")
    convert.add_argument("--nframes", type=int, default=16, help="frames of a video, spread evenly (default 16)")
    convert.add_argument("--max-frame-tokens", type=_positive, default=128, help="largest frame, in 28x28 pixels")
    convert.add_argument("--min-frame-tokens", type=_positive, default=4, help="smaller frames are enlarged to this")
    convert.add_argument("--max-image-tokens", type=_positive, default=1024, help="largest image, in 28x28 pixels")
    convert.add_argument("--prompt", choices=list(PROMPTS), help="prompt text (default: the paper's for the source)")
    _add_relative(convert)
    convert.add_argument("--invert", action="store_true", help="question-answer inversion in one go")
    _add_inversion(convert)
    _add_strict(convert)
    _add_common(convert)
    convert.set_defaults(run_step=_convert)

    invert = steps.add_parser("invert", help="question-answer inversion of a converted file")
    invert.add_argument("file", help="parquet file that `data convert` wrote")
    invert.add_argument("--out", required=True, help="parquet file to write; its reports go beside it")
    invert.add_argument("--prompt", choices=list(PROMPTS), help="prompt text (default: any number of answers)")
    _add_inversion(invert)
    _add_strict(invert)
    _add_common(invert)
    invert.set_defaults(run_step=_invert)

    frames = steps.add_parser("frames", help="decode the videos of parquet files into a frame cache")
    frames.add_argument("files", nargs="+", help="parquet files")
    frames.add_argument("--cache", required=True, help="folder of the frame cache")
    frames.add_argument("--keep-corrupt", action="store_true", help="use damaged videos too; each is noted")
    frames.add_argument("--ray", action="store_true", help="spread over a Ray cluster that sees videos and cache")
    _add_patch_size(frames)
    _add_strict(frames)
    _add_common(frames, "decode again what is in the cache")
    frames.set_defaults(run_step=_frames)

    check = steps.add_parser("check", help="find what would go wrong in training; exit code 1 if something would")
    check.add_argument("files", nargs="+", help="parquet files to train on")
    check.add_argument("--validation", nargs="*", default=[], help="parquet files to validate on")
    check.add_argument("--cache", help="frame cache that training will read")
    check.add_argument("--model", help="checkpoint whose processor counts the prompts' tokens")
    check.add_argument(
        "--max-prompt-length", type=_positive, default=4096, help="longest prompt in tokens, video included"
    )
    check.add_argument("--fix", metavar="DIR", help="write files without the rows found, and a list of those; exit 0")
    _add_patch_size(check)
    _add_common(check)
    check.set_defaults(run_step=_check)

    audit = steps.add_parser("audit", help="what constant answers would earn: the score of a policy that does not look")
    audit.add_argument("files", nargs="+", help="parquet files")
    audit.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a reward setting, e.g. tasks.temporal_grounding.threshold=0.7 (may be repeated)",
    )
    audit.add_argument("--json", metavar="F", help="write the table to this file as well, with all digits")
    audit.add_argument("--csv", metavar="F", help="the same as CSV")
    audit.add_argument("--force", action="store_true", help="overwrite files that exist")
    audit.set_defaults(run_step=_audit)

    split = steps.add_parser("split", help="hold rows of a parquet file out for validation; no video is on both sides")
    split.add_argument("file", help="parquet file: FILE-kept.parquet and FILE-held.parquet are written beside it")
    split.add_argument("--hold-out", type=int, required=True, metavar="N", help="rows to hold out, at least")
    split.add_argument("--seed", type=int, default=0, help="of the videos that are drawn (default 0)")
    split.add_argument("--force", action="store_true", help="overwrite files that exist")
    split.set_defaults(run_step=_split)

    reroot = steps.add_parser("reroot", help="name the videos of a parquet file in another folder, and rewrite it")
    reroot.add_argument("file", help="parquet file")
    reroot.add_argument("--root", required=True, help="folder that the videos lie in now, at any depth")
    _add_relative(reroot)
    reroot.set_defaults(run_step=_reroot)


def run(args: argparse.Namespace) -> int:
    """Run one step; 0 if all is well, 1 if videos failed or ``check`` found something."""
    datasets.disable_progress_bars()  # its bars say nothing that matters here
    return args.run_step(args)


def _add_relative(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--relative", action="store_true", help="write video paths from the file's own folder")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}: need 1 or more")
    return number


def _add_inversion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, help="seed of the inversion (default 0)")
    parser.add_argument(
        "--negation",
        choices=["meaning", "paper"],
        help="why and how questions: keep what they take for granted (default), or negate their verb as the paper does",
    )
    parser.add_argument("--paper-compatible", action="store_true", help="invert by the released rules, leaks included")


def _inversion_options(args: argparse.Namespace) -> list[tuple[str, bool]]:
    """Each option of the inversion, and whether it was given."""
    return [
        ("--seed", args.seed is not None),
        ("--negation", args.negation is not None),
        ("--paper-compatible", args.paper_compatible),
    ]


def _add_strict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--strict", action="store_true", help="stop at the first bad row or video (default: list them)")


def _add_patch_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--patch-size", type=_positive, default=14, help="the model's patch size (Qwen2.5-VL: 14)")


def _add_common(parser: argparse.ArgumentParser, force: str = "overwrite files that exist") -> None:
    parser.add_argument("--workers", type=_positive, default=os.cpu_count() or 1, help="threads")
    parser.add_argument("--force", action="store_true", help=force)


def _convert(args: argparse.Namespace) -> int:
    from verl_twgrpo.data.convert import convert
    from verl_twgrpo.data.inversion import contradictory_options
    from verl_twgrpo.data.parquet import write_parquet
    from verl_twgrpo.data.sources import source
    from verl_twgrpo.files import ensure_absent

    if args.source == "mini_clevrer":
        raise ValueError(
            "--source mini_clevrer: its questions and videos are made, not converted;"
            " run `verl-twgrpo demo prepare --data-only --out DIR`"
        )
    if not args.invert:
        for option, given in _inversion_options(args):
            if given:
                raise ValueError(f"{option} has no effect without --invert")
    chosen = source(args.source)
    split = args.split or chosen.split
    if not re.fullmatch(r"\w[\w.-]*", split):
        raise ValueError(f"--split {split}: need a name of letters, digits, '.', '-' and '_'; it becomes a file's name")
    if args.min_frame_tokens > args.max_frame_tokens:
        raise ValueError(
            f"--max-frame-tokens {args.max_frame_tokens} is below --min-frame-tokens {args.min_frame_tokens}"
        )
    limits = FrameLimits(
        nframes=args.nframes,
        max_pixels=args.max_frame_tokens * TOKEN_PIXELS,
        min_pixels=args.min_frame_tokens * TOKEN_PIXELS,
        image_pixels=args.max_image_tokens * TOKEN_PIXELS,
    )
    out = Path(args.out) / f"{args.source}-{split}.parquet"
    ensure_absent([out], args.force)
    if args.annotations and not args.videos and chosen.videos_beside:
        args.videos = os.path.dirname(os.path.abspath(args.annotations))
    for name in ("annotations", "videos"):
        if not getattr(args, name):
            raise ValueError(f"--{name} is needed for --source {args.source}")
    converted = convert(args.source, args.annotations, args.videos, split, args.workers, strict=args.strict)
    items = converted.items
    for reason, number in converted.counts.most_common():
        print(f"left out: {number} x {reason}")
    unsound = sum(bool(contradictory_options(item.options, item.answers)) for item in items)
    if unsound:
        print(f"note: {unsound} items have the same option as true and as false; `data check --fix` leaves them out")
    items, write_audit = _inverted(items, args, out) if args.invert else (items, lambda: None)
    write_parquet(items, out, limits=limits, prompt=args.prompt, force=args.force, relative=args.relative)
    left_out = [{"id": key, "reason": reason} for key, reason in converted.left_out]
    _write_json(left_out, out.with_suffix(".left_out.json"))
    write_audit()
    print(f"{out}: {len(items)} items")
    return 0


def _invert(args: argparse.Namespace) -> int:
    from verl_twgrpo.data.parquet import from_row, to_row, write_rows
    from verl_twgrpo.data.rows import has_relative_videos
    from verl_twgrpo.files import ensure_absent

    out = Path(args.out)
    if out.suffix != ".parquet" or out.is_dir():
        raise ValueError(
            f"--out {args.out}: need the name of a parquet file to write, such as {out / 'inverted.parquet'}"
        )
    ensure_absent([out], args.force)
    rows, left_out = _usable_rows(args.file, args.strict)
    # each row keeps the frame limits that it was converted with
    limits = [FrameLimits.of_row(row) for row in rows]
    try:
        items, write_audit = _inverted([from_row(row) for row in rows], args, out)
    except ValueError as error:
        raise ValueError(f"{args.file}: {error}") from None
    shown = progress(items, len(items), "prompts", "row")
    rows = [to_row(item, k, limits[k], args.prompt) for k, item in enumerate(shown)]
    write_rows(rows, out, force=args.force, relative=has_relative_videos(args.file))
    if left_out:
        _write_json(left_out, out.with_suffix(".left_out.json"))
    write_audit()
    print(f"{out}: {len(rows)} items")
    return 0


def _usable_rows(file: str, strict: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows that can be used, and a list of the others, which are printed; with ``strict`` the first one raises."""
    from verl_twgrpo.data.parquet import from_row
    from verl_twgrpo.data.prompts import check_text
    from verl_twgrpo.data.rows import read_raw_rows, row_problem

    rows, left_out = [], []
    raw = read_raw_rows(file)
    for number, row in enumerate(progress(raw, len(raw), "reading", "row")):
        problem = row_problem(row) or ("" if row["videos"] or row.get("images") else "videos: need one, got none")
        try:
            if not problem:
                check_text(from_row(row))
        except ValueError as error:
            problem = str(error)
        if not problem:
            rows.append(row)
            continue
        if strict:
            raise ValueError(f"{file}: row {number}: {problem}")
        left_out.append({"file": file, "row": number, "reason": problem})
        print(f"left out: {file}: row {number}: {problem}")
    if not rows:
        first = f"; the first: row {left_out[0]['row']}: {left_out[0]['reason']}" if left_out else ""
        raise ValueError(f"{file}: no row that can be used ({len(left_out)} bad{first})")
    return rows, left_out


def _inverted(items: list, args: argparse.Namespace, out: Path) -> tuple[list, Callable[[], None]]:
    """The items after inversion, and what writes the audit beside ``out`` and prints its first table."""
    from verl_twgrpo.data.audit import audit, to_markdown
    from verl_twgrpo.data.inversion import invert_all
    from verl_twgrpo.files import atomic_write
    from verl_twgrpo.rewards import validate

    if args.paper_compatible and args.negation:
        raise ValueError("--negation has no effect with --paper-compatible, which has its own rules")
    outcomes = invert_all(
        progress(items, len(items), "inversion", "question"),
        seed=args.seed or 0,
        paper_compatible=args.paper_compatible,
        negation=args.negation or "meaning",
    )
    validate(outcome.after for outcome in outcomes)
    report = audit(outcomes)
    page = to_markdown(report)

    def write_audit() -> None:
        _write_json(report, out.with_suffix(".audit.json"))
        with atomic_write(out.with_suffix(".audit.md")) as part:
            part.write_text(page, encoding="utf-8")
        print(page.split("## ")[0].strip())
        print(f"audit: {out.with_suffix('.audit.md')}")

    return [outcome.after for outcome in outcomes], write_audit


def _frames(args: argparse.Namespace) -> int:
    from verl_twgrpo.video.fill import prepare_all, videos_of, write_last_run

    files = [_usable_rows(file, args.strict) for file in args.files]
    videos = videos_of(row for rows, _ in files for row in rows)
    results = prepare_all(
        videos,
        args.cache,
        image_patch_size=args.patch_size,
        workers=args.workers,
        ray=args.ray,
        keep_corrupt=args.keep_corrupt,
        again=args.force,
        strict=args.strict,
    )
    summary = write_last_run(results, args.cache)
    for result in results:
        for note in result.notes:
            print(f"note: {result.video}: {note}")
        if result.state == "failed":
            print(f"failed: {result.video}: {result.reason}")
    print(", ".join(f"{summary[key]} {key}" for key in ("videos", "decoded", "cached", "failed")))
    return 1 if summary["failed"] or any(left_out for _, left_out in files) else 0


def _audit(args: argparse.Namespace) -> int:
    from verl_twgrpo.data.lazy_answers import lazy_answers, to_table
    from verl_twgrpo.data.parquet import read_rows
    from verl_twgrpo.files import ensure_absent, write_csv
    from verl_twgrpo.rewards import mixture_from_words

    ensure_absent([path for path in (args.json, args.csv) if path], args.force)
    settings = mixture_from_words(args.set)
    rows = [row for file in args.files for row in read_rows(file)]
    found = lazy_answers(progress(rows, len(rows), "truths", "row"), settings)
    print(to_table(found), end="")
    if args.json:
        _write_json([dataclasses.asdict(one) for one in found], Path(args.json))
    if args.csv:
        write_csv(args.csv, map(dataclasses.asdict, found))
    return 0


def _split(args: argparse.Namespace) -> int:
    from verl_twgrpo.data.parquet import read_rows, write_rows
    from verl_twgrpo.data.rows import has_relative_videos
    from verl_twgrpo.data.splits import hold_out
    from verl_twgrpo.files import ensure_absent

    path = Path(args.file)
    parts = [path.with_name(f"{path.stem}-{name}.parquet") for name in ("kept", "held")]
    ensure_absent(parts, args.force)
    for part, rows in zip(parts, hold_out(read_rows(path), args.hold_out, args.seed), strict=True):
        write_rows(rows, part, force=args.force, relative=has_relative_videos(args.file))
        print(f"{part}: {len(rows)} rows")
    return 0


def _reroot(args: argparse.Namespace) -> int:
    from verl_twgrpo.data.convert import VideoFolder
    from verl_twgrpo.data.parquet import read_rows, write_rows
    from verl_twgrpo.video.digest import known_digest

    folder = VideoFolder(args.root)
    rows = read_rows(args.file)
    for number, row in enumerate(rows):
        for video in row["videos"]:
            found = folder.find(video["video"], by_name=True)
            if found is None:
                raise FileNotFoundError(f"{args.file}: row {number}: {video['video']} is not under {args.root}")
            if video["digest"] and known_digest(found) != video["digest"]:
                raise ValueError(f"{args.file}: row {number}: {found} is not the video that was converted")
            video["video"] = found
    write_rows(rows, args.file, force=True, relative=args.relative)
    print(f"{args.file}: {len(rows)} rows, videos under {args.root}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from verl_twgrpo.data.check import check, prompt_counter, table
    from verl_twgrpo.data.rows import read_raw_rows
    from verl_twgrpo.video.cache import FrameCache

    if args.fix:
        _check_fix_folder(Path(args.fix), [*args.files, *args.validation], args.force)
    if args.cache and not Path(args.cache).is_dir():
        raise FileNotFoundError(f"--cache {args.cache}: no such folder; `verl-twgrpo data frames` makes it")
    training = {file: read_raw_rows(file) for file in args.files}
    validation = {file: read_raw_rows(file) for file in args.validation}
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
        _write_fixed({**training, **validation}, findings, Path(args.fix))
        return 0
    return 1 if findings else 0


def _check_fix_folder(folder: Path, files: list[str], force: bool) -> None:
    """Before the work: where its results shall go."""
    from verl_twgrpo.files import ensure_absent

    names = [Path(file).name for file in files]
    if len(set(names)) < len(names):
        raise ValueError(f"--fix {folder}: two of the files have the same name")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--fix {folder}: need a folder, this is a file")
    ensure_absent([folder / name for name in names], force)


def _write_fixed(files: dict[str, list], findings: list, folder: Path) -> None:
    from verl_twgrpo.data.parquet import write_rows
    from verl_twgrpo.data.rows import has_relative_videos

    for file, rows in files.items():
        found = [finding for finding in findings if finding.file == file]
        bad = {finding.row for finding in found}
        out = folder / Path(file).name
        kept = [row for number, row in enumerate(rows) if number not in bad]
        write_rows(kept, out, force=True, relative=has_relative_videos(file))
        _write_json([dataclasses.asdict(finding) for finding in found], out.with_suffix(".left_out.json"))
        print(f"{out}: {len(rows) - len(bad)} of {len(rows)} rows; left out: {out.with_suffix('.left_out.json')}")


def _write_json(value: Any, path: Path) -> None:
    from verl_twgrpo.files import atomic_write

    with atomic_write(path) as part:
        part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
