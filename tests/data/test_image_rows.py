"""Questions on images, which Video-R1-260k mixes with those on videos: converted, checked, split, in a prompt."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf
from PIL import Image

from verl_twgrpo import cli
from verl_twgrpo.data.check import check, prompt_counter
from verl_twgrpo.data.images import image_shape
from verl_twgrpo.data.parquet import read_rows, write_rows
from verl_twgrpo.torchvision_ops import declare_missing_ops


@pytest.fixture
def mixed(make_video, tmp_path, monkeypatch):
    """Video-R1's rows on two images and one video, converted."""
    make_video("shown/CLEVRER/one.mp4", frames=9)
    (tmp_path / "shown/Math").mkdir()
    for k, size in enumerate([(200, 120), (300, 90)]):
        Image.new("RGB", size, (60 * k, 9, 9)).save(tmp_path / f"shown/Math/{k}.png")
    paths = "./Math/0.png", "./CLEVRER/one.mp4", "./Math/1.png"
    rows = [
        {
            "problem_id": k,
            "problem": "How many?",
            "data_type": "image" if path.endswith("png") else "video",
            "problem_type": "numerical",
            "options": [],
            "solution": f"<answer>{k}</answer>",
            "path": path,
            "data_source": "x",
        }
        for k, path in enumerate(paths)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    words = ["data", "convert", "--source", "video_r1", "--annotations", "rows.json", "--videos", "shown", "--out", "."]
    monkeypatch.chdir(tmp_path)
    assert cli.main([*words, "--nframes", "4", "--max-image-tokens", "20"]) == 0
    return tmp_path / "video_r1-train.parquet"


@pytest.fixture(scope="module")
def checkpoint(qwen_processor, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("checkpoint")
    qwen_processor.save_pretrained(folder)
    return str(folder)


def test_they_are_checked_and_their_prompts_counted(mixed, checkpoint, tmp_path, capsys):
    assert cli.main(["data", "check", str(mixed), "--model", checkpoint]) == 0
    assert "3 rows, nothing found" in capsys.readouterr().out
    rows = read_rows(mixed)
    assert [len(row["images"]) for row in rows] == [1, 0, 1]
    # 20 tokens of 28 x 28 pixels at most, however long the image is
    assert all(height * width <= 20 * 784 for _, height, width in (image_shape(row["images"][0]) for row in rows[::2]))
    (found,) = check({"a": rows[1:2]}, {}, prompt_length=prompt_counter(checkpoint), max_prompt_length=10)
    assert found.kind == "prompt too long"


@pytest.mark.parametrize("what", ["missing", "changed", "broken", "thin"])
def test_each_fault_of_an_image_is_found(what, mixed, tmp_path):
    picture = tmp_path / "shown/Math/0.png"
    rows = read_rows(mixed)
    if what == "missing":
        picture.unlink()
    elif what == "thin":
        Image.new("RGB", (3000, 40)).save(picture)
    else:
        picture.write_bytes(b"no picture")
    if what in ("broken", "thin"):
        rows[0]["images"][0]["digest"] = ""
    (found,) = check({"a": rows}, {})
    assert (found.row, found.kind) == (0, "image broken" if what == "thin" else f"image {what}")
    assert ("too long and thin" in found.message) == (what == "thin")


def test_an_image_of_validation_is_found_in_training_and_a_split_shares_none(mixed, tmp_path):
    rows = read_rows(mixed)
    assert [f.kind for f in check({"a": rows[:1]}, {"b": rows[:1]})] == ["image in validation"]
    assert cli.main(["data", "split", str(mixed), "--hold-out", "1"]) == 0
    kept, held = (read_rows(tmp_path / f"video_r1-train-{name}.parquet") for name in ("kept", "held"))
    assert (len(kept), len(held)) == (2, 1)


def test_a_row_with_both_or_with_a_bad_image_is_named(mixed, tmp_path):
    rows = read_rows(mixed)
    both = json.loads(json.dumps(rows[1])) | {"images": rows[0]["images"]}
    (found,) = check({"a": [both]}, {})
    assert (found.kind, found.message) == ("videos", "a video and an image, need one of them")
    rows[0]["images"][0]["max_pixels"] = 1
    write_rows(rows, tmp_path / "bad.parquet")
    with pytest.raises(ValueError, match=r"bad\.parquet: row 0: images\.0: min_pixels 3136, max_pixels 1"):
        read_rows(tmp_path / "bad.parquet")
    with pytest.raises(ValueError, match="--relative is for videos alone"):
        write_rows(rows, tmp_path / "relative.parquet", relative=True)


def test_one_reaches_a_prompt_through_verls_dataset(mixed, checkpoint, qwen_processor, tmp_path):
    declare_missing_ops()
    from verl.utils.dataset.rl_dataset import RLHFDataset
    from verl.utils.dataset.vision_utils import process_image
    from verl.utils.tokenizer import build_multimodal_processor_inputs

    config = OmegaConf.create(
        {"cache_dir": str(tmp_path / "cache"), "filter_overlong_prompts": False, "return_raw_chat": True}
    )
    dataset = RLHFDataset([str(mixed)], qwen_processor.tokenizer, config, qwen_processor)
    (turn,) = dataset[0]["raw_prompt"]
    assert turn["content"][0]["type"] == "image" and turn["content"][0]["image"].endswith("Math/0.png")
    assert dataset[1]["raw_prompt"][0]["content"][0]["type"] == "video"
    image = process_image(dict(turn["content"][0]))
    row = read_rows(mixed)[0]
    assert (3, image.height, image.width) == image_shape(row["images"][0])
    text = qwen_processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
    inputs = build_multimodal_processor_inputs(qwen_processor, text=[text], images=[image])
    pad = qwen_processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert (inputs["input_ids"] == pad).sum() == image.height * image.width // 784 > 0
    assert prompt_counter(checkpoint)(row, image_shape(row["images"][0])) == len(inputs["input_ids"][0])
