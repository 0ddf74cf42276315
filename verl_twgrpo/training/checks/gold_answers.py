"""The truth of every row reads: a bad one ends the run at its first rollout."""

from __future__ import annotations

from omegaconf import DictConfig

from verl_twgrpo.rewards import routing, scoring

from .parquet_files import columns, tables
from .registry import check

GOLD_CHECKS = {"multi_answer": scoring.check_gold, "video_tasks": routing.check_gold}


@check(reads_files=True)
def check_gold_answers(config: DictConfig) -> None:
    check_gold = GOLD_CHECKS.get(config.reward.reward_manager.name)
    if check_gold is None:
        return
    for what, path in tables(config):
        for number, row in enumerate(columns(what, path, ["data_source", "reward_model", "extra_info"])):
            try:
                check_gold(row["data_source"], row["reward_model"]["ground_truth"], row["extra_info"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                reason = str(error) if isinstance(error, ValueError) else "reward_model or extra_info is incomplete"
                raise ValueError(
                    f"{what}: row {number}: {reason}; `verl-twgrpo data check` lists all such rows"
                ) from None
