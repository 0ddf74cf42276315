"""A user's own questions: the generic schema, and a source of another package in one file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from verl_twgrpo import cli
from verl_twgrpo.data.parquet import read_parquet, read_rows
from verl_twgrpo.data.sources import SOURCES, source

ROW = {"question": "what is thrown", "options": ["a ball", "a cup", "a hat"], "answer": "A,C", "video": "v/a.mp4"}


@pytest.fixture
def own(make_video, tmp_path):
    """Write rows beside their video, and convert them: exit code."""
    make_video("v/a.mp4", frames=8)

    def convert(rows, *more) -> int:
        path = tmp_path / "own.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        words = ("data", "convert", "--source", "jsonl", "--annotations", path, "--out", tmp_path / "out", *more)
        return cli.main([str(word) for word in words])

    return convert


def test_a_row_of_the_generic_schema_becomes_an_item(own, tmp_path):
    more = {
        "id": "q7",
        "question_type": "action",
        "task": "multiple_choice",
        "metadata": {"by": ["me"]},
        "decisive": ["cup"],
    }
    assert own([ROW, {**ROW, **more, "answer": ["B"]}]) == 0
    first, second = read_parquet(tmp_path / "out/jsonl-train.parquet")
    assert first.answers == {"A", "C"} and first.options == ("a ball", "a cup", "a hat") and first.id
    assert second.id == "q7" and second.answers == {"B"} and second.question_type == "action"
    assert second.provenance["metadata"] == {"by": ["me"]}
    assert (first.decisive, second.decisive) == ((), ("cup",))
    # videos are looked for beside the file, unless --videos says where
    assert first.video == str(tmp_path / "v/a.mp4")
    content = read_rows(tmp_path / "out/jsonl-train.parquet")[0]["prompt"][0]["content"]
    assert content.startswith("<video>what is thrown\nA a ball") and "letters separated by commas" in content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": "A"}, "answers: no such field; there are id, question, options, answer, truth, video"),
        ({"answer": None}, "answer: need letters such as 'A', 'A,C'"),
        ({"answer": "D"}, "answer D is not among the options A,B,C"),
        ({"answer": ["A", 2]}, "answer: need letters"),
        ({"answer": "the ball"}, "answer: need option letters, got 'the ball'"),
        ({"options": []}, "options: need a list of options"),
        ({"options": {"A": "x"}}, "options: need a list of options"),
        ({"question": ""}, "question is empty"),
        ({"decisive": "cup"}, "decisive: need a list of words or phrases, got 'cup'"),
        ({"video": 1.5}, "video: need a text, got 1.5"),
        ({"task": "grounding"}, "task: 'grounding', need one of boolean, counting"),
        ({"metadata": "x"}, "metadata: need an object"),
    ],
)
def test_a_slip_is_named_with_file_row_and_field(change, message, own, tmp_path, capsys):
    assert own([ROW, {**ROW, **change}], "--strict") == 2
    assert re.search(rf"own\.jsonl: row 1: (jsonl: item .*: )?{re.escape(message)}", capsys.readouterr().err)
    assert own([ROW, {**ROW, **change}]) == 0
    (left_out,) = json.loads((tmp_path / "out/jsonl-train.left_out.json").read_text())
    assert left_out["id"].endswith("own.jsonl: row 1") and message.split(":")[0] in left_out["reason"]


def test_every_file_here_ends_in_its_source():
    folder = Path(sys.modules[source.__module__].__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "fields", "source"}
    assert files == set(SOURCES)
    with pytest.raises(ValueError, match="nosuch: unknown source; known: .*clevrer, "):
        source("nosuch")


TOY = """
from verl_twgrpo.data.schema import Item
from verl_twgrpo.data.sources import Source


def convert(row, split):
    yield Item(id=row["n"], source="toy", split=split, question=row["q"], options=("yes", "no"),
               answers=frozenset("A"), video=row["v"])


SOURCE = Source("toy", convert, split="train", prompt="clevrer", videos_beside=True)
"""


def toy_package(folder: Path, code: str) -> dict[str, str]:
    """A package as pip would install it: one module and its entry point; the environment in which it is found."""
    (folder / "toy_source.py").write_text(code)
    about = folder / "toy_source-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-source\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[verl_twgrpo.sources]\ntoy = toy_source:SOURCE\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "said"),
    [
        (TOY, ""),
        ("import nosuchmodule\nSOURCE = 1", "toy: the source of another package: toy_source:SOURCE cannot be loaded"),
        ("SOURCE = 1", "toy_source:SOURCE is no Source but int"),
        (TOY.replace('Source("toy"', 'Source("star"'), "has the name star, which is taken"),
    ],
)
def test_a_source_of_another_package_is_one_file(code, said, make_video, tmp_path):
    environment = toy_package(tmp_path, code)
    make_video("a.mp4", frames=8)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"n": "1", "q": "what falls", "v": "a.mp4"}) + "\n")
    words = ["data", "convert", "--source", "toy", "--annotations", "rows.jsonl", "--out", "out"]
    code_line = "import sys; from verl_twgrpo.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code_line, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    if said:
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        (item,) = read_parquet(tmp_path / "out/toy-train.parquet")
        assert (item.id, item.source, item.question) == ("1", "toy", "what falls")
