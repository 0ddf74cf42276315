"""``verl-twgrpo watch``: the page of a run that still trains, kept up to date, for browsers of this machine only."""

from __future__ import annotations

import argparse
import shlex
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"
WATCHED = ("tw_grpo", "rollouts", "validation", "tensorboard")
"""Folders of a run whose files the page shows."""
PAUSE_FACTOR = 3
"""Of the time that an update took, the least pause after it: a long run's page must not take a core of its training."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Run directories, and how to serve their page."""
    parser.description = (
        "Serves the page of `verl-twgrpo report` on this machine's loopback address and keeps it up to date while the"
        " run trains. It reads the run's files and writes none of them; the page lies in a temporary folder."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="run directories; several are overlaid")
    parser.add_argument("--port", type=int, default=0, help="port (default: a free one)")
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="pause between looks (default: 5)")
    parser.add_argument("--data", nargs="+", default=[], metavar="PARQUET", help="as for report")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C. Raises ``ValueError`` for a folder that is not there, ``OSError`` for a port in use."""
    from .site.build import Site

    for folder in args.runs:
        if not Path(folder).is_dir():
            raise ValueError(f"{folder}: no such run directory")
    with tempfile.TemporaryDirectory(prefix="verl-twgrpo-watch-") as folder:
        runs = _first_runs(args.runs, args.every)
        site = Site(Path(folder), runs, shlex.join(["verl-twgrpo", "watch", *args.runs]), args.data, live=True)
        site.update(runs)
        with serve(Path(folder), args.port) as address:
            print(f"{address}  Ctrl-C ends it", flush=True)
            try:
                _keep_up(site, args.runs, args.every)
            except KeyboardInterrupt:
                raise KeyboardInterrupt("the run goes on, and its files are as they were") from None
    return 0


@contextmanager
def serve(folder: Path, port: int = 0) -> Iterator[str]:
    """The files of ``folder``, and no others, on the loopback address; its address is given."""
    with ThreadingHTTPServer((LOOPBACK, port), _handler(folder.resolve())) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_address[1]}/"
        finally:
            server.shutdown()


def _first_runs(folders: Sequence[str], every: float) -> list[Any]:
    from .reading import read_runs

    said = False
    while True:
        try:
            return read_runs(folders, quiet=True)
        except ValueError as error:
            if "nothing of a run" not in str(error):
                raise
            if not said:
                print(f"{str(error).partition(':')[0]}: nothing of a run yet; waiting for its first step", flush=True)
                said = True
            time.sleep(every)


def _keep_up(site: Any, folders: Sequence[str], every: float) -> None:
    from .reading import read_runs

    seen, pause = _state(folders), every
    while True:
        time.sleep(pause)
        state = _state(folders)
        if state == seen:
            continue
        started = time.monotonic()
        try:
            runs = read_runs(folders, quiet=True)
            site.update(runs)
        except (ValueError, OSError) as error:  # a file in the middle of being written: the next look finds it whole
            print(f"not updated: {error}", flush=True)
        else:
            seen = state
            steps = (max((group.step for group in run.groups), default=0) for run in runs)
            print(f"{time.strftime('%H:%M:%S')}  step {', '.join(map(str, steps))}", flush=True)
        pause = max(every, PAUSE_FACTOR * (time.monotonic() - started))


def _state(folders: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Size and time of every file that the page shows."""
    state = {}
    for folder in folders:
        for part in WATCHED:
            for path in Path(folder, part).rglob("*"):
                try:
                    facts = path.stat()
                except FileNotFoundError:  # renamed meanwhile
                    continue
                state[str(path)] = (facts.st_mtime_ns, facts.st_size)
    return state


def _is_of_page(path: Path, folder: Path) -> bool:
    """Whether this is a file in ``folder``, links followed, or the folder itself, which stands for its index.html."""
    try:
        return path == folder or (path.resolve().is_relative_to(folder) and path.is_file())
    except ValueError:  # a null byte
        return False


def _handler(folder: Path) -> type[SimpleHTTPRequestHandler]:
    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def send_head(self) -> Any:
            # a page elsewhere whose name was pointed at this address would otherwise read the run
            host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
            if host not in (LOOPBACK, "localhost"):
                self.send_error(403, "only for this machine")
                return None
            if not _is_of_page(Path(self.translate_path(self.path)), folder):
                self.send_error(404)
                return None
            return super().send_head()

        def end_headers(self) -> None:
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            super().end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the screen is for the run."""

    return Handler
