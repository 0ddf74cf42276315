"""vLLM's Qwen2.5-VL processor keeps a video's rate: with the mend, without it, and beside vLLM's own."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import verl  # noqa: F401 - loads the plugin

from verl_twgrpo.compat.vllm_video_rate import keep_video_rate

TRUE = {"fps": 25.0, "frames_indices": list(range(0, 128, 8)), "total_num_frames": 128, "do_sample_frames": False}
SECONDS = 0.64


def module(vllm_keeps_metadata: bool):
    """As much of vllm/model_executor/models/qwen2_5_vl.py as is mended; its HF processor rounds to bfloat16."""

    class Qwen2_5_VLProcessingInfo:
        def get_data_parser(self):
            parser = SimpleNamespace(video_needs_metadata=vllm_keeps_metadata)
            parser._get_video_with_metadata = lambda video: video if isinstance(video, tuple) else (video, None)
            return parser

        def get_hf_processor(self, **_):
            return SimpleNamespace(video_processor=SimpleNamespace(temporal_patch_size=2))

    class Qwen2_5_VLMultiModalProcessor:
        def __init__(self, info):
            self.info, self.calls = info, []

        def _call_hf_processor(self, prompt, mm_data, mm_kwargs, tok_kwargs):
            self.calls.append((mm_data, mm_kwargs))
            return {"second_per_grid_ts": torch.full((len(mm_data.get("videos", ())),), 2 / 24, dtype=torch.bfloat16)}

    return SimpleNamespace(
        Qwen2_5_VLProcessingInfo=Qwen2_5_VLProcessingInfo, Qwen2_5_VLMultiModalProcessor=Qwen2_5_VLMultiModalProcessor
    )


def processed(vllm, videos, info=None):
    """Videos through the module's parser and processor, as vLLM's processing goes."""
    info = info or vllm.Qwen2_5_VLProcessingInfo()
    parser = info.get_data_parser()
    parsed = [parser._get_video_with_metadata(video) for video in videos]
    if not parser.video_needs_metadata:
        parsed = [frames for frames, _ in parsed]
    processor = vllm.Qwen2_5_VLMultiModalProcessor(info)
    made = processor._call_hf_processor("", {"videos": parsed}, {}, {})
    return made["second_per_grid_ts"], *processor.calls[-1]


@pytest.mark.parametrize("vllm_keeps_metadata", [False, True])
def test_the_seconds_are_the_videos_own(vllm_keeps_metadata):
    vllm = module(vllm_keeps_metadata)
    keep_video_rate(vllm)
    keep_video_rate(vllm)  # verl's plugin and vLLM's may both come by
    frames = torch.zeros(16, 3, 4, 4)
    seconds, mm_data, mm_kwargs = processed(vllm, [(frames, TRUE), (frames, {**TRUE, "fps": 2.5})])
    assert seconds.dtype == torch.float32
    assert seconds.tolist() == pytest.approx([SECONDS, 10 * SECONDS])
    if vllm_keeps_metadata:
        assert isinstance(mm_data["videos"][0], tuple), "vLLM's own mend takes the pairs apart itself"
    else:
        assert mm_data["videos"][0] is frames and mm_data["video_metadata"][1]["fps"] == 2.5
        # transformers' VideoMetadata knows no such field
        assert "do_sample_frames" not in mm_data["video_metadata"][0] and mm_kwargs["do_sample_frames"] is False


@pytest.mark.parametrize("vllm_keeps_metadata", [False, True])
def test_frames_without_a_rate_get_the_default_and_are_not_refused(vllm_keeps_metadata, caplog):
    from verl_twgrpo.video.rate import say_default_rate

    say_default_rate.cache_clear()
    vllm = module(vllm_keeps_metadata)
    keep_video_rate(vllm)
    for _ in range(3):
        seconds, *_ = processed(vllm, [torch.zeros(16, 3, 4, 4)])
    assert seconds.tolist() == [1.0]
    assert sum("without a rate" in record.message for record in caplog.records) == 1


def test_models_that_inherit_its_classes_are_left_alone():
    vllm = module(False)
    keep_video_rate(vllm)

    class Other(vllm.Qwen2_5_VLProcessingInfo):
        """OpenPangu and Qwen-Omni do so."""

    seconds, mm_data, _ = processed(vllm, [(torch.zeros(16, 3, 4, 4), TRUE)], Other())
    assert seconds.dtype == torch.bfloat16 and "video_metadata" not in mm_data


@pytest.mark.slow
def test_vllms_processes_without_verl_load_it(tmp_path):
    models = tmp_path / "vllm" / "model_executor" / "models"
    models.mkdir(parents=True)
    for package in (models, models.parent, models.parent.parent):
        (package / "__init__.py").touch()
    stubs = (
        "class Qwen2_5_VLProcessingInfo:\n    def get_data_parser(self): ...\n"
        "class Qwen2_5_VLMultiModalProcessor:\n    def _call_hf_processor(self): ...\n"
    )
    (models / "qwen2_5_vl.py").write_text(stubs)
    root = Path(__file__).resolve().parents[2]
    (declared,) = re.findall(r'"vllm.general_plugins"\]\n\w+ = "(.+)"', (root / "pyproject.toml").read_text())
    code = (
        "import sys\nfrom importlib.metadata import EntryPoint\n"
        f"EntryPoint('rate', {declared!r}, 'vllm.general_plugins').load()()\n"
        "from vllm.model_executor.models import qwen2_5_vl\n"
        "print(qwen2_5_vl.Qwen2_5_VLProcessingInfo.get_data_parser.__module__, 'verl' in sys.modules)"
    )
    path = os.pathsep.join([str(tmp_path), str(root)])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["verl_twgrpo.compat.vllm_video_rate", "False"], done.stderr


@pytest.mark.upstream_bug
def test_vllm_drops_the_rate_without_it(video_models, monkeypatch):
    """The bug. If this fails, vLLM keeps the rate itself, and compat/vllm_video_rate.py can go."""
    models = pytest.importorskip("vllm.model_executor.models.qwen2_5_vl")
    from verl_twgrpo.training.video_agreement import ActorSide, RolloutSide, differences, synthetic

    monkeypatch.delattr(models.Qwen2_5_VLProcessingInfo, "get_data_parser")  # what it inherits is vLLM's
    stock = super(models.Qwen2_5_VLMultiModalProcessor, models.Qwen2_5_VLMultiModalProcessor)._call_hf_processor
    monkeypatch.setattr(
        models.Qwen2_5_VLMultiModalProcessor,
        "_call_hf_processor",
        lambda self, **given: stock(self, **given),
    )
    actor = ActorSide(str(video_models["qwen2_5_vl"]))
    rollout = RolloutSide(str(video_models["qwen2_5_vl"]), actor.processor)
    videos = [synthetic(5.12, 16), synthetic(40.0, 16)]
    ours = actor.see([{"role": "user", "content": [{"type": "video"}, {"type": "video"}]}], videos)
    theirs = rollout.see(ours.prompt_ids, videos)
    assert "positions" in differences(ours, theirs)[0]
    assert theirs.time_of_videos(actor.processor.video_token_id) == [[0, 0, 0, 0, 0, 0, 1, 1]] * 2
