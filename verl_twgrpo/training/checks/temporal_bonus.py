"""T-GRPO: rollouts on shuffled frames have to be made, and by our trainer."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from verl_twgrpo.training.modes import is_ours
from verl_twgrpo.training.settings import SEEDED_SHUFFLING_LOOP, SHUFFLING_LOOP

from .registry import check
from .settings import read_settings

KEY = "algorithm.tw_grpo.temporal_bonus"


@check(runs="training")
def check_temporal_bonus(config: DictConfig) -> list[str]:
    bonus = read_settings(config.algorithm.tw_grpo).made_temporal_bonus
    if bonus is None:
        return []
    mode = config.trainer.v1.trainer_mode
    if not is_ours(config):
        raise ValueError(
            f"{KEY}: nobody would look at it with trainer.v1.trainer_mode={mode}; set trainer.v1.trainer_mode=tw_grpo"
        )
    rollout = config.actor_rollout_ref.rollout
    if rollout.agent.default_agent_loop not in (SHUFFLING_LOOP, SEEDED_SHUFFLING_LOOP):
        raise ValueError(
            f"{KEY}: actor_rollout_ref.rollout.agent.default_agent_loop={rollout.agent.default_agent_loop} shuffles no "
            f"frames; choose {SHUFFLING_LOOP} or {SEEDED_SHUFFLING_LOOP}"
        )
    if bonus.responses(rollout.n) < 1:
        raise ValueError(
            f"{KEY}.shuffled={bonus.shuffled}: of {rollout.n} rollouts (actor_rollout_ref.rollout.n) that is none on "
            "shuffled frames; raise one of them"
        )
    if OmegaConf.select(config, "algorithm.filter_groups.enable"):
        raise ValueError(
            f"{KEY}: algorithm.filter_groups.enable=True would judge a group together with its rollouts on shuffled "
            "frames; set it to False"
        )
    return [
        f"{KEY}: each prompt with a video has {bonus.responses(rollout.n)} more rollouts, on shuffled frames; they are "
        "scored and not trained on"
    ]
