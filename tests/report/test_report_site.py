"""What the page's files hold: text that cannot end a script, samples that keep it small, frames or why not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from verl_twgrpo.report.reading import read_runs
from verl_twgrpo.report.site import build
from verl_twgrpo.report.site.sampling import Sample, plan_sample, shown_groups, shown_steps
from verl_twgrpo.report.site.script import rounded, write_call
from verl_twgrpo.report.site.settings import differences, read_settings

from .dumps import MARKUP, two_runs, write_groups, write_run_settings


def calls(path: Path) -> list:
    """The arguments of a data file's one call."""
    text = path.read_text(encoding="utf-8")
    return json.loads("[" + re.fullmatch(r"Report\.\w+\((.*)\);\n", text, re.DOTALL)[1] + "]")


def group(id, texts=("<answer>A</answer>", "<answer>B</answer>")):
    return {"id": id, "question": "?", "truth": "A", "texts": list(texts), "rewards": [2.0, 0.0]}


def test_no_data_file_can_end_its_script(tmp_path):
    text = f"{MARKUP}<!-- \u2028\u2029 & \x00 \ud800"
    write_call(tmp_path / "x.js", "step", text)
    written = (tmp_path / "x.js").read_text(encoding="utf-8")
    assert not re.search("[<>&\u2028\u2029]", written)
    assert calls(tmp_path / "x.js") == [text.replace("\ud800", "?")]


def test_numbers_keep_three_digits_and_what_is_none_is_null():
    assert rounded([1.23456, -0.00012345, 0.0, float("nan"), None, float("inf"), 98765]) == [
        *(1.23, -0.000123, 0.0, None, None, None, 98800.0)
    ]


def test_a_page_of_a_long_run_takes_the_same_questions_of_every_run_and_says_so(tmp_path, monkeypatch):
    runs = [tmp_path / name for name in "ab"]
    for run, order in zip(runs, (range(6), reversed(range(6))), strict=True):
        names = [f"q{k}" for k in order]
        for step in (1, 2, 3, 4):
            write_groups(run, step, [group(name) for name in names])
    paths = sorted((runs[0] / "tw_grpo").glob("*.parquet"))
    assert plan_sample(paths, 10**9) == Sample()
    each = plan_sample(paths, 50_000)
    assert each == Sample(per_step=3, every=1)
    assert plan_sample(paths, 6_000) == Sample(per_step=1, every=3)
    assert shown_steps([1, 2, 3, 4], Sample(1, 3)) == [1, 4]

    monkeypatch.setattr(build, "GROUPS_BUDGET", 100_000)
    read = read_runs(runs)
    build.Site(tmp_path / "out", read, "command").update(read)
    (listed,) = calls(tmp_path / "out" / "data" / "groups.js")
    shown = [{entry["id"] for entry in entries if entry["step"] == 1} for entries in listed]
    assert shown[0] == shown[1] and len(shown[0]) == 3
    (overview,) = calls(tmp_path / "out" / "data" / "overview.js")
    assert overview["runs"][0]["sample"].startswith("3 of 6 groups of every step, drawn by a hash of the question")
    size = sum(path.stat().st_size for path in (tmp_path / "out" / "data" / "run0").iterdir())
    assert size < 50_000


def test_which_groups_are_shown_does_not_depend_on_their_order():
    names = {f"u{k}": f"q{k}" for k in range(20)}
    assert set(shown_groups(names, 4)) == set(shown_groups(dict(reversed(names.items())), 4))
    assert len(shown_groups(names, 4)) == 4


def test_frames_come_from_the_cache_and_the_page_says_where_there_are_none(tmp_path):
    runs = read_runs(two_runs(tmp_path))
    build.Site(tmp_path / "out", runs, "command").update(runs)
    groups = calls(tmp_path / "out" / "data" / "run0" / "step_000001.js")[3]
    ((cached,), (absent,), _) = (one["frames"] for one in groups)
    assert (cached["n"], cached["seconds"], cached["t"], cached["seen"]) == (4, [0, 1, 2, 3], [0, 4], [28, 28])
    assert (tmp_path / "out" / cached["src"]).stat().st_size > 100
    assert "q1.mp4: no such video" in absent["missing"]


def test_only_what_is_new_is_written_again(tmp_path):
    run = tmp_path / "run"
    write_groups(run, 1, [group("q0")])
    site = build.Site(tmp_path / "out", read_runs([run]), "command")
    site.update(read_runs([run]))
    first = tmp_path / "out" / "data" / "run0" / "step_000001.js"
    before = first.stat().st_mtime_ns
    write_groups(run, 2, [group("q1")])
    site.update(read_runs([run]))
    assert first.stat().st_mtime_ns == before
    (listed,) = calls(tmp_path / "out" / "data" / "groups.js")
    assert [entry["step"] for entry in listed[0]] == [1, 2]
    assert calls(tmp_path / "out" / "data" / "version.js") == [2]


def test_the_settings_beside_the_dumps_have_no_keys_of_services(tmp_path):
    write_run_settings(tmp_path, algorithm__tw_grpo__alpha=0.7)
    assert "secret" not in (tmp_path / "tw_grpo" / "settings.yaml").read_text()
    assert read_settings(tmp_path) == {"algorithm.tw_grpo.alpha": 0.7}


def test_only_runs_that_wrote_their_settings_are_compared():
    assert differences([{"a": 1, "b": 2}, {}, {"a": 1, "b": 3, "c": 4}]) == [
        ("b", ["2", "?", "3"]),
        ("c", ["not set", "?", "4"]),
    ]


def test_settings_that_were_written_by_half_are_none(tmp_path):
    (tmp_path / "tw_grpo").mkdir()
    (tmp_path / "tw_grpo" / "settings.yaml").write_text("a: [1")
    assert read_settings(tmp_path) == {}


@pytest.mark.parametrize("name", ["static/index.html.j2", "static/style.css", "vendor/uPlot.LICENSE"])
def test_code_is_in_the_package(name):
    from importlib.resources import files

    assert files("verl_twgrpo.report.site").joinpath(name).is_file()
