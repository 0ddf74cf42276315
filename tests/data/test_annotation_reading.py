"""Annotation files in every shape that people have them, and videos wherever they lie."""

from __future__ import annotations

import json

import datasets
import pytest

from verl_twgrpo.data.convert import VideoFolder, convert
from verl_twgrpo.data.reading import read_annotations

ROWS = [
    {"id": "1", "video": "a.mp4", "question": "what is it", "options": ["(A) x", "(B) y"], "answer": "(A)"},
    {"id": "2", "video": "a.mp4", "question": "où est\u2028il", "options": ["(A) é", "(B) ü"], "answer": "(B)"},
]


def rows_in(path) -> list[dict]:
    return [row for _, row in read_annotations(str(path), "train")]


def lines(ending: str) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + ending for row in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(ROWS).encode()),
        ("a.json", json.dumps(ROWS, indent=2, ensure_ascii=False).replace("\n", "\r\n").encode()),
        ("a.json", json.dumps(ROWS).encode("utf-8-sig")),
        ("a.json", lines("\n").encode()),
        ("a.jsonl", lines("\n").encode()),
        ("a.jsonl", lines("\r\n").encode()),
        ("a.jsonl", lines("\r\n").encode("utf-8-sig")),
        ("a.jsonl", lines("\n\n").encode()),
        ("A B é.JSONL", lines("\n").encode()),
    ],
    ids=["json", "json-crlf", "json-bom", "lines-in-json", "lines", "crlf", "crlf-bom", "blank-lines", "unicode"],
)
def test_json_and_json_lines_are_read_alike(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert rows_in(tmp_path / name) == ROWS


def test_parquet_is_read_like_json(tmp_path):
    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "a.parquet")
    assert rows_in(tmp_path / "a.parquet") == ROWS


def test_a_hub_name_is_loaded_through_datasets(monkeypatch):
    asked = []

    def load_dataset(name, config, *, split):
        asked.append((name, config, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [where for where, _ in read_annotations("owner/set:tasks", "test")][1] == "owner/set:tasks (test): row 1"
    assert [row for _, row in read_annotations("owner/set", "test")] == ROWS
    assert asked == [("owner/set", "tasks", "test"), ("owner/set", None, "test")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"id": 1},', r"a\.json: line 1: not JSON"),
        ("a.json", b"", r"a\.json: line 1: not JSON"),
        ("a.jsonl", b'{"id": \n', r"a\.jsonl: line 1: not JSON"),
        ("a.json", "grün".encode("latin-1"), r"a\.json: not UTF-8 text \(byte 2 is 0xfc\)"),
        ("a.json", b"[" * 100000, r"a\.json: line 1: not JSON \(nested too deep\)"),
        ("a.json", b'{"data": [{"id": 1}]}', r"a\.json: one object whose 'data' is a list"),
        ("a.csv", b"id,video", r"a\.csv: need a \.json, \.jsonl or \.parquet file"),
        ("a.parquet", b"PAR", r"a\.parquet: not a parquet file"),
    ],
)
def test_files_that_cannot_be_read_are_named_with_the_line(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        rows_in(tmp_path / name)


def test_one_bad_row_or_line_does_not_stop_the_others(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n{"id": \n["x"]\n{"id": 2}\n')
    rows = [row for _, row in read_annotations(str(tmp_path / "a.jsonl"), "train")]
    assert [rows[0], rows[3]] == [{"id": 1}, {"id": 2}]
    assert rows[1].reason.startswith("line 2: not JSON") and "got list" in rows[2].reason


def test_a_file_that_is_not_there_is_not_taken_for_a_hub_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such annotation file"):
        list(read_annotations("data/train.json", "train"))


# conversion of such files


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my vidéos").mkdir()
    (tmp_path / "my vidéos" / "a.mp4").write_bytes(b"a")
    return tmp_path / "my vidéos"


def write(tmp_path, rows) -> str:
    path = tmp_path / "anno tätions.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


def test_zero_rows_are_an_error_that_names_the_file(tmp_path, folder):
    with pytest.raises(ValueError, match=r"anno tätions\.json: no item is left \(the file has no rows\)"):
        convert("nextgqa", write(tmp_path, []), folder)


def test_one_and_twenty_six_options_are_taken_and_twenty_seven_refused(tmp_path, folder):
    def row(number):
        options = [f"({chr(65 + k)}) {'x' * (k + 1)}" if k < 26 else f"({k}) x" for k in range(number)]
        return {**ROWS[0], "id": str(number), "options": options}

    items = convert("nextgqa", write(tmp_path, [row(1), row(26)]), folder).items
    assert [len(item.options) for item in items] == [1, 26]
    assert items[1].options[25] == "x" * 26
    with pytest.raises(ValueError, match="row 0: options: 27 options, at most 26"):
        convert("nextgqa", write(tmp_path, [row(27)]), folder, strict=True)


def test_an_empty_option_list_is_refused(tmp_path, folder):
    with pytest.raises(ValueError, match=r"row 0: options: need a list of options, got \[\]"):
        convert("nextgqa", write(tmp_path, [{**ROWS[0], "options": []}]), folder, strict=True)


def test_a_missing_video_is_listed_and_left_out(tmp_path, folder):
    result = convert("nextgqa", write(tmp_path, [ROWS[0], {**ROWS[1], "video": "b/c.mp4"}]), folder)
    assert [item.id for item in result.items] == ["1"]
    assert result.left_out == [("2", f"video missing: b/c.mp4 under {folder}")]
    assert result.counts == {"video missing": 1}


def test_conversion_says_where_an_item_comes_from(tmp_path, folder):
    items = convert("nextgqa", write(tmp_path, ROWS), folder).items
    assert items[1].provenance == {"annotations": "anno tätions.json", "row": "1", "video": "a.mp4"}


# the video folder


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_videos_are_found_below_the_folder_by_what_is_left_of_their_path(tmp_path):
    touch(tmp_path, "Chemistry/0.mp4", "videos/Physics/0.mp4")
    folder = VideoFolder(tmp_path)
    assert folder.find("/MMVU/videos/Chemistry/0.mp4", by_name=False) == str(tmp_path / "Chemistry/0.mp4")
    assert folder.find("/MMVU/videos/Physics/0.mp4", by_name=False) == str(tmp_path / "videos/Physics/0.mp4")


def test_a_numbered_video_of_another_subject_is_never_taken_instead(tmp_path):
    touch(tmp_path, "Chemistry/0.mp4", "0.mp4")
    assert VideoFolder(tmp_path).find("/MMVU/videos/Art/0.mp4", by_name=False) is None


def test_unique_names_are_found_in_any_subfolder_and_two_of_them_are_refused(tmp_path):
    touch(tmp_path, "x/y/v 1.mp4", "p/twice.mp4", "q/twice.mp4")
    folder = VideoFolder(tmp_path)
    assert folder.find("v 1.mp4", by_name=True) == str(tmp_path / "x/y/v 1.mp4")
    with pytest.raises(ValueError, match="2 files have this name"):
        folder.find("twice.mp4", by_name=True)


def test_paths_that_climb_out_of_the_folder_stay_inside(tmp_path):
    touch(tmp_path, "secret.mp4", "videos/other.mp4")
    assert VideoFolder(tmp_path / "videos").find("../secret.mp4", by_name=False) is None


def test_a_missing_video_folder_is_named(tmp_path):
    with pytest.raises(NotADirectoryError, match="nowhere: no such folder"):
        VideoFolder(tmp_path / "nowhere")


def test_a_mistyped_name_in_a_folder_that_is_there_is_no_hub_name(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: pytest.fail("the hub was asked"))
    (tmp_path / "annotations").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="annotations/trian: no such annotation file"):
        list(read_annotations("annotations/trian", "train"))
