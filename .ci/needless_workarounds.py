"""Which workarounds the installed libraries no longer need: runs the tests that show the bugs, and prints Markdown.

A test marked ``upstream_bug`` passes while the bug is there. Where one fails, the workaround may go, or the test has to
learn what changed. The exit code is 0 either way: this is a report.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

TESTS = Path(__file__).resolve().parents[1] / "tests" / "compat"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        pytest = [sys.executable, "-m", "pytest", "-q", "-m", "upstream_bug", f"--junitxml={results}", str(TESTS)]
        done = subprocess.run(pytest, capture_output=True, text=True)
        if not results.exists():
            sys.exit(f"pytest wrote no results:\n{done.stdout}{done.stderr}")
        print(markdown(results.read_text(encoding="utf-8"), version("verl")))


def markdown(results: str, verl: str) -> str:
    """A table of JUnit's ``results``, one row per test."""
    lines = [f"Workarounds with verl {verl}", "", "| workaround | its bug |", "|---|---|"]
    for case in ElementTree.fromstring(results).iter("testcase"):
        failed = case.find("failure") is not None or case.find("error") is not None
        skipped = case.find("skipped") is not None
        state = "not tried" if skipped else "**not seen any more: needless?**" if failed else "still there"
        workaround = case.get("classname", "").rpartition(".")[2].removeprefix("test_")
        lines.append(f"| {workaround} | {state} ({case.get('name')}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
