"""No-gradient passes over altered videos inside one of verl's engines."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from verl_twgrpo.training.columns import as_list
from verl_twgrpo.training.views import VIEW_KEY, Colours, View, altered_inputs, colours_of, row_seed


class ViewsMixin:
    """Makes an engine show a batch that carries ``VIEW_KEY`` its videos under that view (``View``'s settings, "seed").

    Goes before any engine that takes pixels from the column ``multi_modal_inputs``, and before other mixins: they get
    the altered rows as if they were the batch's own. Rows of a group (``uid``) are altered alike: one permutation, one
    choice of patches. Batches without the key, and updates, are left alone.
    """

    def forward_backward_batch(self, data: TensorDict, loss_function: Any, forward_only: bool = False) -> Any:
        settings = tu.get_non_tensor_data(data=data, key=VIEW_KEY, default=None)
        if settings is not None:
            if not forward_only:
                raise ValueError(
                    f"a batch with {VIEW_KEY} came to an update: only log-probs are taken of altered videos"
                )
            data = self._with_view(data, dict(settings))
        return super().forward_backward_batch(data, loss_function, forward_only=forward_only)

    def _with_view(self, data: TensorDict, settings: dict[str, Any]) -> TensorDict:
        seed = settings.pop("seed", 0)
        view = View(**settings)
        if view.name == "unchanged" or "multi_modal_inputs" not in data:
            return data
        rows = [getattr(row, "data", row) for row in as_list(data["multi_modal_inputs"])]
        groups = as_list(data["uid"])
        altered = [
            altered_inputs(row, view, self._colours, row_seed(seed, uid)) if row else row
            for row, uid in zip(rows, groups, strict=True)
        ]
        data = data.copy()  # of the columns, not of what is in them
        tu.assign_non_tensor_stack(data, "multi_modal_inputs", altered)
        return data

    @cached_property
    def _colours(self) -> Colours:
        return colours_of(self.model_config.processor.video_processor)
