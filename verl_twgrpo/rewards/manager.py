"""The reward manager ``multi_answer`` of verl's reward loop; importing this module registers it.

Chosen by ``reward.reward_manager.name=multi_answer``; its settings (``scoring.RewardSettings``) are
``reward.custom_reward_function.reward_kwargs.*``, the node under ``reward`` that verl leaves open, so that they serve
``scoring.compute_score`` as a custom reward function just as well.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import register
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from .scoring import RewardSettings, score_row

SETTINGS_NODE = "reward.custom_reward_function.reward_kwargs"


def settings_from_config(config: DictConfig) -> RewardSettings:
    """The reward settings in a verl configuration. Raises ``ValueError`` with the full name of a bad one."""
    node = OmegaConf.select(config, SETTINGS_NODE)
    try:
        return RewardSettings.read(OmegaConf.to_container(node, resolve=True) if node is not None else {})
    except ValueError as error:
        raise ValueError(f"{SETTINGS_NODE}.{error}") from None


@register("multi_answer")
class MultiAnswerRewardManager(RewardManagerBase):
    """Scores rollouts against sets of letters, in training and in validation.

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
        self.settings = settings_from_config(config)
        path = OmegaConf.select(config, "reward.custom_reward_function.path")
        if path is not None:
            raise ValueError(
                f"reward.custom_reward_function.path: {path} would not be called, as the reward manager multi_answer"
                " scores by itself: unset the path, or set reward.reward_manager.name=naive"
            )

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Score the last sequence of one rollout: ``{"reward_score": float, "reward_extra_info": {...}}``.

        Raises ``ValueError`` with the row's id for a bad ground truth.
        """
        row = data[-1]
        response_ids_T = row.batch["responses"]
        length = int(row.batch["attention_mask"][-len(response_ids_T) :].sum())
        result = score_row(
            data_source=row.non_tensor_batch["data_source"],
            solution_str=self.tokenizer.decode(response_ids_T[:length], skip_special_tokens=True),
            ground_truth=row.non_tensor_batch["reward_model"]["ground_truth"],
            extra_info=row.non_tensor_batch.get("extra_info"),
            settings=self.settings,
        )
        return {"reward_score": result["score"], "reward_extra_info": result}
