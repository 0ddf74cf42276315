"""A workaround is two files: the module, and a test of its name that shows the bug without it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted({path.stem for path in (ROOT / "verl_twgrpo/compat").glob("*.py")} - {"__init__", "workaround"})


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_test_that_shows_the_bug(name):
    test = ROOT / "tests/compat" / f"test_{name}.py"
    assert test.is_file(), f"{test} is missing"
    assert "@pytest.mark.upstream_bug" in test.read_text(encoding="utf-8")


def test_the_weekly_report_names_what_is_needless():
    spec = importlib.util.spec_from_file_location("needless", ROOT / ".ci/needless_workarounds.py")
    needless = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(needless)
    results = """<testsuites><testsuite>
      <testcase classname="tests.compat.test_a" name="test_x"/>
      <testcase classname="tests.compat.test_b" name="test_y"><failure message="gone"/></testcase>
      <testcase classname="tests.compat.test_c" name="test_z"><skipped/></testcase>
    </testsuite></testsuites>"""
    assert needless.markdown(results, "9.9").splitlines() == [
        "Workarounds with verl 9.9",
        "",
        "| workaround | its bug |",
        "|---|---|",
        "| a | still there (test_x) |",
        "| b | **not seen any more: needless?** (test_y) |",
        "| c | not tried (test_z) |",
    ]
