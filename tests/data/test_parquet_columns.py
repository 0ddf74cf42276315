"""The parquet files that verl's own data set class loads."""

from __future__ import annotations

import datasets
import pytest
from omegaconf import OmegaConf

from verl_twgrpo.data.parquet import FrameLimits, read_parquet, read_rows, write_parquet
from verl_twgrpo.torchvision_ops import declare_missing_ops


@pytest.fixture
def items(make_item, tmp_path):
    return [
        make_item(id="1", video=str(tmp_path / "a b/é.mp4"), video_digest="0" * 64, provenance={"row": "3"}),
        make_item(id="2", video=str(tmp_path / "c.mp4"), answers=frozenset("ACD"), negated=True, question_type="TN"),
    ]


def test_items_come_back_as_they_were_written(items, tmp_path):
    path = write_parquet(items, tmp_path / "out é/train set.parquet")
    assert read_parquet(path) == items


def test_columns_are_those_of_verls_data_set(items, tmp_path):
    rows = read_rows(write_parquet(items, tmp_path / "a.parquet", limits=FrameLimits(nframes=8)))
    assert rows[1]["data_source"] == "nextgqa"
    assert rows[1]["reward_model"] == {"style": "rule", "ground_truth": "A,C,D"}
    assert rows[0]["videos"] == [
        {
            "video": str(tmp_path / "a b/é.mp4"),
            "nframes": 8,
            "min_pixels": 4 * 28 * 28,
            "max_pixels": 128 * 28 * 28,
            "digest": "0" * 64,
        }
    ]
    assert rows[1]["extra_info"] == {
        "id": "2",
        "index": 1,
        "split": "train",
        "question": "what did the boy eat",
        "options": ["an apple", "a pear", "some bread", "soup"],
        "question_type": "TN",
        "negated": True,
        "provenance": "{}",
        "task": "multiple_choice",
        "decisive": [],
    }


def test_the_papers_limits_are_the_default():
    assert FrameLimits() == FrameLimits(nframes=16, max_pixels=128 * 28 * 28, min_pixels=4 * 28 * 28)


def test_relative_video_paths_become_absolute(make_item, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_parquet([make_item(video="videos/7.mp4")], "a.parquet")
    assert read_rows(path)[0]["videos"][0]["video"] == str(tmp_path / "videos/7.mp4")


def test_a_file_is_not_overwritten_unless_forced(items, tmp_path):
    path = write_parquet(items, tmp_path / "a.parquet")
    with pytest.raises(FileExistsError, match="give --force"):
        write_parquet(items[:1], path)
    assert len(read_parquet(write_parquet(items[:1], path, force=True))) == 1


def test_a_write_that_fails_leaves_the_old_file_and_no_part(items, tmp_path, monkeypatch):
    path = write_parquet(items, tmp_path / "a.parquet")

    def half_way(self, part):
        part.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(datasets.Dataset, "to_parquet", half_way)
    with pytest.raises(OSError, match="disk full"):
        write_parquet(items, path, force=True)
    assert [found.name for found in tmp_path.iterdir()] == ["a.parquet"] and len(read_parquet(path)) == 2


def test_zero_items_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="no items to write"):
        write_parquet([], tmp_path / "a.parquet")


def test_a_file_without_our_columns_is_refused_naming_them(tmp_path):
    datasets.Dataset.from_list([{"prompt": "x", "data_source": "y"}]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="column videos, ability, reward_model, extra_info is missing"):
        read_rows(tmp_path / "a.parquet")


def test_a_bad_row_is_named_when_read(items, tmp_path):
    rows = read_rows(write_parquet(items, tmp_path / "a.parquet"))
    rows[1]["reward_model"]["ground_truth"] = "E"
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet: row 1: nextgqa: item 2: answer E is not among"):
        read_parquet(tmp_path / "b.parquet")


@pytest.mark.parametrize(("nframes", "low", "high"), [(15, 1, 2), (0, 1, 2), (16, 0, 2), (16, 3, 2)])
def test_limits_that_qwen_vl_utils_would_refuse_are_refused(nframes, low, high):
    with pytest.raises(ValueError, match="nframes|min_pixels"):
        FrameLimits(nframes=nframes, min_pixels=low * 784, max_pixels=high * 784)


# verl's own class


def verl_dataset(paths, processor, tmp_path):
    declare_missing_ops()
    from verl.utils.dataset.rl_dataset import RLHFDataset

    config = OmegaConf.create(
        {"cache_dir": str(tmp_path / "cache"), "filter_overlong_prompts": False, "return_raw_chat": True}
    )
    return RLHFDataset([str(path) for path in paths], processor.tokenizer, config, processor)


def test_verl_loads_the_file_and_its_processor_builds_a_prompt(make_item, make_video, qwen_processor, tmp_path):
    video = make_video("videos in here/é.mp4", frames=30)
    path = write_parquet([make_item(video=str(video))], tmp_path / "a.parquet", limits=FrameLimits(nframes=4))
    row = verl_dataset([path], qwen_processor, tmp_path)[0]
    (turn,) = row["raw_prompt"]
    assert turn["content"][0]["type"] == "video" and turn["content"][0]["video"] == str(video)
    assert turn["content"][0]["nframes"] == 4
    assert row["reward_model"]["ground_truth"] == "B" and row["extra_info"]["id"] == "7"

    from verl.utils.tokenizer import build_multimodal_processor_inputs

    from verl_twgrpo.video.decode import prepare_video

    text = qwen_processor.apply_chat_template(row["raw_prompt"], add_generation_prompt=True, tokenize=False)
    inputs = build_multimodal_processor_inputs(qwen_processor, text=[text], videos=[prepare_video(turn["content"][0])])
    assert inputs["video_grid_thw"].tolist() == [[2, 4, 6]]  # 4 frames in pairs, 56 x 84 pixels in patches of 14
    pad = qwen_processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    assert (inputs["input_ids"] == pad).sum() == 2 * 4 * 6 // 4


def test_verl_concatenates_files_of_different_sources(make_item, qwen_processor, tmp_path):
    plain = write_parquet([make_item()], tmp_path / "a.parquet")
    other = make_item(source="clevrer", options=("x",), answers=frozenset("A"), provenance={"qai": {"seed": 1}})
    rows = verl_dataset([plain, write_parquet([other], tmp_path / "b.parquet")], qwen_processor, tmp_path)
    assert [rows[k]["data_source"] for k in range(len(rows))] == ["nextgqa", "clevrer"]


def test_very_long_questions_survive(make_item, qwen_processor, tmp_path):
    question = "why " + "very " * 20_000 + "long"
    path = write_parquet([make_item(question=question)], tmp_path / "a.parquet")
    (turn,) = verl_dataset([path], qwen_processor, tmp_path)[0]["raw_prompt"]
    assert question in turn["content"][1]["text"]
