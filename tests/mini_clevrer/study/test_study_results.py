"""The study's files: CSV, tables and figures, of whole studies and of those that lack something."""

from __future__ import annotations

import csv
import shutil

import pytest

from verl_twgrpo.mini_clevrer.study.accuracy import DifferenceRow
from verl_twgrpo.mini_clevrer.study.page import difference_table
from verl_twgrpo.mini_clevrer.study.results import write_results

pytestmark = pytest.mark.slow

CSV = (
    *("runs.csv", "accuracy.csv", "summary.csv", "differences.csv", "comparisons.csv", "curves.csv", "timing.csv"),
    "follows.csv",
)
OTHER = ("tables.md", "learning_curves.png", "accuracy.png", "forest.png")


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def names(paths):
    return sorted(path.name for path in paths)


def test_a_whole_study_gives_every_file(whole_study, tmp_path):
    out = tmp_path / "results"
    written = write_results(whole_study, out)
    assert names(written) == names(out.iterdir()) == sorted(CSV + OTHER)
    runs = rows_of(out / "runs.csv")
    assert len(runs) == 7
    assert runs[3] == {
        "arm": "tw_grpo",
        "seed": "1",
        "seconds": "90",
        "versions": "verl==0.9.1",
        "overrides": "recipe=mini_clevrer tw_grpo-s1",
    }
    start = rows_of(out / "accuracy.csv")[0]
    assert start["arm"] == "start" and start["seed"] == ""
    curve = rows_of(out / "curves.csv")[0]
    assert (curve["step"], curve["reward"], curve["weight_mean"], curve["entropy"]) == ("1", "1.25", "", "")
    assert {row["arm"] for row in rows_of(out / "timing.csv")} == {"grpo_soft", "tw_grpo", "alpha_0", "blind"}
    assert rows_of(out / "follows.csv")[0]["equal_answers"] == "1"
    compared = {(row["first"], row["second"]): row for row in rows_of(out / "comparisons.csv")}
    assert set(compared) == {("tw_grpo", "grpo_soft"), ("alpha_0", "grpo_soft"), ("blind", "grpo_soft")}
    paper = compared["tw_grpo", "grpo_soft"]
    # one of two seeds has one of six questions more
    assert (paper["step"], paper["seeds"], paper["n"], paper["verdict"]) == ("4", "2", "6", "open")
    assert float(paper["difference"]) == pytest.approx(1 / 12, abs=1e-6)
    assert compared["alpha_0", "grpo_soft"]["verdict"] == "equivalent"
    assert float(paper["p_corrected"]) >= float(paper["p_value"])


def test_the_page_shows_each_table_with_its_numbers(whole_study, tmp_path):
    write_results(whole_study, tmp_path)
    page = (tmp_path / "tables.md").read_text()
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in page.splitlines() if line.startswith("| ")}
    assert "33.3 [" in lines["start model"] and "| 0 | – |" in lines["start model"]
    assert "differs, strict % (n = 3)" in lines["model"]
    assert "+8.3 [" in lines["TW-GRPO, paper − GRPO, soft reward"]
    assert "+0.0 [+0.0, +0.0]" in lines["TW-GRPO, alpha = 0 − GRPO, soft reward"]
    assert "1.125 [1.125, 1.125]" in page and "11.1" in page
    assert "| 1 | 4 | none | 0 | 0 | 0 | 0 | 100.0 % of 12 | 4 |" in page


def test_a_difference_is_bold_where_its_interval_leaves_zero_out():
    pair = ("tw_grpo", "seen", "start", "seen", 4)
    rows = [
        DifferenceRow(*pair, "single", 3, 9, 0.1, 0.01, 0.2, 0.1, 0.01, 0.2, "questions"),
        DifferenceRow(*pair, "multiple", 3, 9, -0.1, -0.2, -0.01, 0, 0, 0, "questions"),
        DifferenceRow(*pair, "all", 3, 18, 0.1, -0.01, 0.2, 0.1, 0.0, 0.2, "questions"),
    ]
    cells = difference_table(rows).splitlines()[2].split(" | ")[3:]
    assert cells[:2] == ["**+10.0 [+1.0, +20.0]**", "**-10.0 [-20.0, -1.0]**"]
    assert cells[2:] == ["+10.0 [-1.0, +20.0]", "+10.0 [+0.0, +20.0] |"]


def test_the_figures_are_pictures_that_name_their_runs(whole_study, tmp_path):
    image = pytest.importorskip("PIL.Image")
    write_results(whole_study, tmp_path)
    for name in ("learning_curves.png", "accuracy.png"):
        with image.open(tmp_path / name) as picture:
            assert picture.width > 1000
            assert "TW-GRPO, paper: 2" in picture.text["Source"] and "make study" in picture.text["Source"]


def test_a_quick_study_of_one_seed_without_blank_frames_gives_what_it_can(make_study, dump, scalars, tmp_path):
    root = make_study(
        {
            "start": ({0: dump("q0")}, {}),
            "grpo_soft-s1": ({3: dump("q0 q1")}, scalars(3)),
            "tw_grpo-s1": ({3: dump("q0 q1 q2")}, scalars(3)),
        }
    )
    assert names(write_results(root, tmp_path)) == sorted({*CSV, *OTHER} - {"follows.csv"})
    assert {row["frames"] for row in rows_of(tmp_path / "accuracy.csv")} == {"seen"}
    assert {row["interval"] for row in rows_of(tmp_path / "differences.csv")} == {"questions"}


@pytest.mark.parametrize("kept", [(), ("start",), ("tw_grpo-s2",), ("alpha_0-s1", "blind-s1"), ("start", "blind-s1")])
def test_any_runs_that_are_missing_are_left_out(whole_study, tmp_path, kept):
    for folder in (whole_study / "runs").iterdir():
        if folder.name not in kept:
            shutil.rmtree(folder)
    written = names(write_results(whole_study, tmp_path / "results"))
    assert {"summary.csv", "tables.md", "accuracy.png"} <= set(written)
    assert ("learning_curves.png" in written) == any(name != "start" for name in kept)


def test_a_run_without_validation_or_with_too_few_steps_is_no_failure(whole_study, tmp_path, scalars, make_study):
    shutil.rmtree(whole_study / "runs" / "tw_grpo-s1" / "validation")
    write_results(whole_study, tmp_path / "results")
    arms = {row["arm"] for row in rows_of(tmp_path / "results" / "summary.csv")}
    assert "tw_grpo" not in arms and "grpo_soft" in arms


def test_files_of_an_earlier_call_do_not_stay(whole_study, tmp_path):
    write_results(whole_study, tmp_path / "results")
    shutil.rmtree(whole_study / "runs" / "alpha_0-s1")
    written = write_results(whole_study, tmp_path / "results")
    assert names(written) == names((tmp_path / "results").iterdir())
    assert not (tmp_path / "results" / "follows.csv").exists()
