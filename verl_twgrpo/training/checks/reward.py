"""The reward manager and its settings."""

from __future__ import annotations

from omegaconf import DictConfig

from .registry import check


@check()
def check_reward_manager(config: DictConfig) -> None:
    # a second of imports that a refusal of a setting need not wait for
    from verl.experimental.reward_loop.reward_manager.registry import REWARD_MANAGER

    from verl_twgrpo.rewards.manager import check_settings

    manager = config.reward.reward_manager
    if manager.get("source", "register") == "register" and manager.name not in REWARD_MANAGER:
        raise ValueError(
            f"reward.reward_manager.name={manager.name}: there is no such manager; choose from "
            f"{', '.join(sorted(REWARD_MANAGER))}"
        )
    check_settings(config)
