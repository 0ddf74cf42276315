"""vLLM keeps the rate of a Qwen2.5-VL video's frames.

vLLM 0.24 to 0.28 drop what verl says of a video, since ``Qwen2_5_VLProcessingInfo`` asks for no metadata. Its processor
then takes the frames of any video as 24 per second, and most of them get one time coordinate. Mended upstream in
https://github.com/vllm-project/vllm/pull/47736; whether the installed vLLM has that is seen from its parser.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
import wrapt

from verl_twgrpo.compat import orphaned_engine
from verl_twgrpo.compat.workaround import Workaround
from verl_twgrpo.video.rate import sampled_rate, say_default_rate, seconds_per_grid, with_rate

MODULE = "vllm.model_executor.models.qwen2_5_vl"
_MENDED = "_verl_twgrpo_keeps_video_rate"


def keep_video_rate(qwen2_5_vl: ModuleType) -> None:
    """Let vLLM's parser keep a video's metadata and its processor compute the seconds per grid from them.

    For Qwen2.5-VL itself: models that inherit its classes (OpenPangu, Qwen-Omni) are left alone. Frames without a rate
    get the default one. The seconds stay in float32, while vLLM would round them to the model's type.
    """
    info_class, processor_class = qwen2_5_vl.Qwen2_5_VLProcessingInfo, qwen2_5_vl.Qwen2_5_VLMultiModalProcessor
    if getattr(info_class, _MENDED, False):
        return
    stock_parser, stock_call = info_class.get_data_parser, processor_class._call_hf_processor

    def get_data_parser(self: Any) -> Any:
        parser = stock_parser(self)
        if type(self) is not info_class:
            return parser
        stock_pair = parser._get_video_with_metadata

        def with_metadata(video: Any) -> tuple[Any, dict[str, Any]]:
            frames, metadata = stock_pair(video)
            if sampled_rate(metadata) is None:
                say_default_rate()
            return frames, with_rate(metadata, len(getattr(frames, "media", frames)))

        parser.video_needs_metadata = True
        parser._get_video_with_metadata = with_metadata
        return parser

    def _call_hf_processor(
        self: Any,
        prompt: str,
        mm_data: Mapping[str, Any],
        mm_kwargs: Mapping[str, Any],
        tok_kwargs: Mapping[str, Any],
    ) -> Any:
        videos = mm_data.get("videos")
        if type(self.info) is not info_class or not videos or not isinstance(videos[0], tuple):
            return stock_call(self, prompt, mm_data, mm_kwargs, tok_kwargs)
        metadata = [dict(told) for _, told in videos]
        samples = mm_kwargs.get("do_sample_frames", any(told.get("do_sample_frames", False) for told in metadata))
        if not stock_parser(self.info).video_needs_metadata:
            mm_data = {**mm_data, "videos": [frames for frames, _ in videos], "video_metadata": _known(metadata)}
            mm_kwargs = {**mm_kwargs, "do_sample_frames": samples}
        made = stock_call(self, prompt, mm_data, mm_kwargs, tok_kwargs)
        if not samples:
            frames_per_grid = self.info.get_hf_processor(**mm_kwargs).video_processor.temporal_patch_size
            made["second_per_grid_ts"] = torch.tensor(
                [seconds_per_grid(told, frames_per_grid) for told in metadata], dtype=torch.float32
            )
        return made

    info_class.get_data_parser = get_data_parser
    processor_class._call_hf_processor = _call_hf_processor
    setattr(info_class, _MENDED, True)


def _known(metadata: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What transformers' ``VideoMetadata`` has fields for: it refuses others, such as vLLM's do_sample_frames."""
    from transformers.video_utils import VideoMetadata

    fields = VideoMetadata.__dataclass_fields__
    return [{key: value for key, value in told.items() if key in fields} for told in metadata]


def vllm_general_plugin() -> None:
    """Entry point of vLLM's general plugins, which vLLM loads in each of its processes, with and without verl."""
    wrapt.register_post_import_hook(keep_video_rate, MODULE)
    # verl's plugins, which bring the other workarounds, are not loaded in all of them
    wrapt.register_post_import_hook(orphaned_engine.end_with_parent, orphaned_engine.MODULE)


WORKAROUND = Workaround(
    module=MODULE,
    apply=keep_video_rate,
    because="drops the rate of a Qwen2.5-VL video, so that most of its frames get one time",
    versions="vllm>=0.24,<=0.28",
    link="https://github.com/vllm-project/vllm/pull/47736",
)
