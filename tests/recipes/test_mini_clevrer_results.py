"""The committed results of the study are those of the study as it is, and its README quotes them."""

import csv
from pathlib import Path

import pytest

from verl_twgrpo.mini_clevrer.study.arms import plan
from verl_twgrpo.mini_clevrer.study.command import FULL, _overrides

RESULTS = Path(__file__).parents[2] / "recipes" / "mini_clevrer"


@pytest.fixture(scope="module")
def runs():
    with open(RESULTS / "runs.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_run_of_the_plan_was_made_with_its_overrides(runs):
    planned = {" ".join(_overrides(Path("outputs/study"), run, FULL)) for run in plan(FULL.arms, FULL.seeds)}
    assert {run["overrides"] for run in runs} == planned


def test_every_line_of_a_table_in_the_readme_is_one_of_the_tables():
    written = set((RESULTS / "tables.md").read_text().splitlines())
    quoted = [line for line in (RESULTS / "README.md").read_text().splitlines() if line.startswith("|")]
    assert len(quoted) > 10 and set(quoted) <= written
