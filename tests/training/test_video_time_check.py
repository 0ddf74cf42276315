"""Videos that rollout and actor would see differently stop a run on the driver."""

import json
import subprocess
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from verl_twgrpo.training.checks import video_time

VIDEO = {"video": "a.mp4", "nframes": 8}


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A run on videos of a model that no check has seen, and a cache of our own."""
    monkeypatch.setenv("VERL_TWGRPO_VIDEO_CHECK", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(video_time, "_installed", lambda name: "1")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return lambda rows=([VIDEO],), rollout="vllm": OmegaConf.create(
        {
            "data": {"video_key": "videos", "train_files": write(tmp_path, rows), "val_files": []},
            "actor_rollout_ref": {"rollout": {"name": rollout}, "model": {"path": str(tmp_path / "model")}},
        }
    )


def write(folder, rows):
    path = folder / "rows.parquet"
    kind = pa.list_(pa.struct([("video", pa.string()), ("nframes", pa.int64())]))
    pq.write_table(pa.table({"videos": pa.array(rows, type=kind)}), path)
    return str(path)


@pytest.fixture
def compared(monkeypatch):
    """Calls of the comparison, which answers what is put into ``says``."""
    seen = SimpleNamespace(calls=[], says=json.dumps([]), returncode=0, stderr="")

    def run(command, **_):
        seen.calls.append(command)
        stdout = f"INFO vLLM talks\n{seen.says}\n"
        return SimpleNamespace(returncode=seen.returncode, stdout=stdout, stderr=seen.stderr)

    monkeypatch.setattr(subprocess, "run", run)
    return seen


def test_agreement_is_found_out_once_for_a_models_configuration(config, compared, tmp_path):
    for _ in range(2):
        assert video_time.check_video_time(config()) == []
    assert len(compared.calls) == 1 and compared.calls[0][-1] == str(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text('{"tokens_per_second": 2}')
    video_time.check_video_time(config())
    assert len(compared.calls) == 2


def test_a_model_that_the_sides_see_differently_is_refused_each_time(config, compared):
    compared.says = json.dumps(["positions: from token 7 on, [3, 1, 1] in the actor, [8, 1, 1] in vLLM"])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"model.path=.*/model: vLLM and the actor.*positions: from token 7"):
            video_time.check_video_time(config())
    assert len(compared.calls) == 2


def test_a_comparison_that_fails_is_no_agreement(config, compared):
    compared.returncode, compared.stderr = 1, "Traceback\nValueError: verl 0.9.1 binds no processor for it\n"
    with pytest.raises(ValueError, match="could not compare.*binds no processor.*VERL_TWGRPO_VIDEO_CHECK=0"):
        video_time.check_video_time(config())


@pytest.mark.parametrize("rollout", ["sglang", "trtllm"])
def test_other_rollouts_are_refused_for_videos(config, compared, rollout):
    with pytest.raises(ValueError, match=f"rollout.name={rollout}: .*video.*rollout.name=vllm"):
        video_time.check_video_time(config(rollout=rollout))
    assert video_time.check_video_time(config(rows=[[], None], rollout=rollout)) == []


def test_it_is_left_out_without_videos_without_vllm_and_on_request(config, compared, monkeypatch):
    assert video_time.check_video_time(config(rows=[[], None])) == []
    monkeypatch.setattr(video_time, "_installed", lambda name: "")
    assert "was not checked" in video_time.check_video_time(config())[0]
    monkeypatch.setenv("VERL_TWGRPO_VIDEO_CHECK", "0")
    assert video_time.check_video_time(config()) == []
    assert compared.calls == []
