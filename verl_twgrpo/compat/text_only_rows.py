"""Rows without a picture in a vision-language batch, such as verl's synthetic padding rows.

For such a micro-batch verl feeds the vision tower zeros, so that its parameters take part on every rank, and takes the
mean of what comes back. With transformers 5 that is an output object and no tensor (``_get_input_embeds`` in
verl/models/transformers/qwen2_vl.py unpacks it everywhere else).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import wrapt

from verl_twgrpo.compat.workaround import Workaround


def fix_text_only_rows(qwen2_vl: ModuleType) -> None:
    """Wrap ``_get_input_embeds`` so that the tower's output is unpacked in that case too."""

    def embed(wrapped, instance, args, kwargs):
        model, *rest = args
        pictures = [*rest[2:4], kwargs.get("pixel_values"), kwargs.get("pixel_values_videos")]
        if all(picture is None for picture in pictures):
            model = _WithUnpackedTower(model, qwen2_vl.unpack_visual_output)
        return wrapped(model, *rest, **kwargs)

    wrapt.wrap_function_wrapper(qwen2_vl, "_get_input_embeds", embed)


class _WithUnpackedTower:
    def __init__(self, model: Any, unpack: Any) -> None:
        self._model, self._unpack = model, unpack

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def visual(self, *args: Any, **kwargs: Any) -> Any:
        return self._unpack(self._model.visual(*args, **kwargs))[0]


WORKAROUND = Workaround(
    module="verl.models.transformers.qwen2_vl",
    apply=fix_text_only_rows,
    because="takes the mean of an output object of transformers 5 in a micro-batch without a picture",
    versions="verl==0.9.1",
    link="patches/0007-text-only-rows.patch",
)
