"""The reward managers ``multi_answer`` and ``video_tasks`` of verl's reward loop; importing this module registers them.

Chosen by ``reward.reward_manager.name``; their settings (``scoring.RewardSettings``, ``routing.TaskMixture``) are
``reward.custom_reward_function.reward_kwargs.*``, the node under ``reward`` that verl leaves open, so that those of
``multi_answer`` serve ``scoring.compute_score`` as a custom reward function just as well.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import register
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from .routing import TaskMixture
from .scoring import RewardSettings, score_row

SETTINGS_NODE = "reward.custom_reward_function.reward_kwargs"


MANAGERS = ("multi_answer", "video_tasks")


def settings_from_config(config: DictConfig) -> RewardSettings:
    """The settings of ``multi_answer`` in a verl configuration. Raises ``ValueError`` with the name of a bad one."""
    try:
        return RewardSettings.read(_reward_kwargs(config))
    except ValueError as error:
        raise ValueError(f"{SETTINGS_NODE}.{error}") from None


def mixture_from_config(config: DictConfig) -> TaskMixture:
    """The settings of ``video_tasks`` in a verl configuration. Raises ``ValueError`` with the name of a bad one."""
    try:
        return TaskMixture.read(_reward_kwargs(config), OmegaConf.select(config, "data.max_response_length"))
    except ValueError as error:
        raise ValueError(f"{SETTINGS_NODE}.{error}") from None


def check_settings(config: DictConfig) -> None:
    """Read the settings of the chosen manager, if it is one of ours. Raises ``ValueError`` naming a bad one."""
    name = config.reward.reward_manager.name
    if name in MANAGERS:
        (settings_from_config if name == "multi_answer" else mixture_from_config)(config)
        _refuse_custom_function(config, name)


def _reward_kwargs(config: DictConfig) -> dict[str, Any]:
    node = OmegaConf.select(config, SETTINGS_NODE)
    return OmegaConf.to_container(node, resolve=True) if node is not None else {}


def _refuse_custom_function(config: DictConfig, manager: str) -> None:
    path = OmegaConf.select(config, "reward.custom_reward_function.path")
    if path is not None:
        raise ValueError(
            f"reward.custom_reward_function.path: {path} would not be called, as the reward manager {manager}"
            " scores by itself: unset the path, or set reward.reward_manager.name=naive"
        )


class _RowManager(RewardManagerBase):
    """Decodes the last sequence of one rollout and scores it as a row.

    Raises ``ValueError`` on construction for a bad setting, or if a custom reward function is asked for as well.
    """

    def __init__(
        self,
        config: DictConfig,
        tokenizer: Any,
        compute_score: Any = None,  # verl always hands one over: its default, or the custom function refused below
        reward_router_address: str | None = None,
        reward_model_tokenizer: Any = None,
    ):
        super().__init__(config, tokenizer, compute_score)
        self.settings = self.read_settings(config)
        _refuse_custom_function(config, self.name)

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Score the last sequence of one rollout: ``{"reward_score": float, "reward_extra_info": {...}}``.

        Raises ``ValueError`` with the row's id for a bad ground truth.
        """
        row = data[-1]
        response_ids_T = row.batch["responses"]
        length = int(row.batch["attention_mask"][-len(response_ids_T) :].sum())
        result = self.score_row(
            row.non_tensor_batch["data_source"],
            self.tokenizer.decode(response_ids_T[:length], skip_special_tokens=True),
            row.non_tensor_batch["reward_model"]["ground_truth"],
            row.non_tensor_batch.get("extra_info"),
            length,
        )
        return {"reward_score": result["score"], "reward_extra_info": result}


@register("multi_answer")
class MultiAnswerRewardManager(_RowManager):
    """Scores rollouts against sets of letters, in training and in validation."""

    name = "multi_answer"
    read_settings = staticmethod(settings_from_config)

    def score_row(self, data_source: str, text: str, truth: Any, info: Any, tokens: int) -> dict[str, Any]:
        return score_row(data_source, text, truth, info, self.settings)


@register("video_tasks")
class VideoTasksRewardManager(_RowManager):
    """Scores rollouts of any mixture of tasks, each by the ``extra_info.task`` of its row."""

    name = "video_tasks"
    read_settings = staticmethod(mixture_from_config)

    def score_row(self, data_source: str, text: str, truth: Any, info: Any, tokens: int) -> dict[str, Any]:
        return self.settings.score_row(data_source, text, truth, info, tokens)
