"""Images and videos in one micro-batch of a Qwen-VL model.

verl calls the vision tower once for images and once more for videos (``_get_input_embeds`` in qwen2_vl.py, qwen3_vl.py
and qwen3_5.py of verl/models/transformers), and once, on zeros, for a micro-batch with neither. Under FSDP each call is
a row of collectives, so that a rank with both kinds waits for ever, or gathers other parameters than its neighbour, if
that has one kind. Here the tower sees both in one call: it treats them alike, and each picture by itself.
"""

from __future__ import annotations

import inspect
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import wrapt

from verl_twgrpo.compat.workaround import AT_ONCE, Workaround

MODULES = tuple(f"verl.models.transformers.{name}" for name in ("qwen2_vl", "qwen3_vl", "qwen3_5"))


def call_tower_once(module: ModuleType) -> None:
    """Wrap ``_get_input_embeds`` of one of ``MODULES``."""
    signature = inspect.signature(module._get_input_embeds)

    def embed(wrapped, instance, args, kwargs):
        given = signature.bind(*args, **kwargs).arguments
        if given.get("pixel_values") is not None and given.get("pixel_values_videos") is not None:
            given["model"] = _WithOneCall(given["model"], given["pixel_values_videos"], given["video_grid_thw"])
        return wrapped(**given)

    wrapt.wrap_function_wrapper(module, "_get_input_embeds", embed)


class _WithOneCall:
    """The model, whose tower answers the call for images and the one for videos, which follows, from one pass."""

    def __init__(self, model: Any, videos: torch.Tensor, video_grid: torch.Tensor) -> None:
        self._model = model
        self._tower = model.visual
        self._videos, self._video_grid = videos, video_grid
        self._of_videos: SimpleNamespace | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @property
    def visual(self) -> Any:
        return _Tower(self)

    def look(self, pixels: torch.Tensor, grid_thw: torch.Tensor) -> SimpleNamespace:
        if self._of_videos is not None:
            return self._of_videos
        both = torch.cat([pixels, self._videos.to(pixels)])
        output = self._tower(both, grid_thw=torch.cat([grid_thw, self._video_grid.to(grid_thw)]))
        merged = self._tower.spatial_merge_size**2
        tokens = [int(grid.prod(-1).sum()) // merged for grid in (grid_thw, self._video_grid)]
        parts = [features.split(tokens) for features in _features(output)]
        of_images, self._of_videos = (_output([part[k] for part in parts], output) for k in range(2))
        return of_images


class _Tower:
    def __init__(self, model: _WithOneCall) -> None:
        self._seen_by = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._seen_by._tower, name)

    def __call__(self, pixels: torch.Tensor, grid_thw: torch.Tensor) -> SimpleNamespace:
        return self._seen_by.look(pixels, grid_thw)


def _features(output: Any) -> list[torch.Tensor]:
    """The tokens, and with Qwen3-VL those of the deepstack layers."""
    return [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]


def _output(features: list[torch.Tensor], like: Any) -> SimpleNamespace:
    output = SimpleNamespace(pooler_output=features[0])
    if hasattr(like, "deepstack_features"):
        output.deepstack_features = features[1:]
    return output


def _hook(_: ModuleType) -> None:
    for name in MODULES:
        wrapt.register_post_import_hook(call_tower_once, name)


WORKAROUND = Workaround(
    module=AT_ONCE,
    apply=_hook,
    because="calls the vision tower twice for a micro-batch with images and videos: ranks with one kind wait for ever",
    versions="verl==0.9.1",
)
