"""SOVA's virtual anchors against what is paid: one on the wrong side would push away from right answers."""

from __future__ import annotations

from omegaconf import DictConfig

from verl_twgrpo.rewards.manager import SETTINGS_NODE, mixture_from_config, settings_from_config

from .registry import check
from .settings import read_settings


@check(runs="training")
def check_anchors(config: DictConfig) -> None:
    """Of rewards whose scale the driver knows; any other is looked at in the first group of one kind."""
    anchors = read_settings(config.algorithm.tw_grpo).made_anchors
    manager = config.reward.reward_manager.name
    if anchors is None or manager not in ("multi_answer", "video_tasks"):
        return
    if manager == "multi_answer":
        accuracy_weight, format_weight = 1.0, settings_from_config(config).format_weight
    else:
        common = mixture_from_config(config).common
        accuracy_weight, format_weight = (float(common.get(name, 1.0)) for name in ("accuracy_weight", "format_weight"))
    paid = accuracy_weight + format_weight
    where = (
        f"well formed, a right response is paid {paid:g} and a wrong one {format_weight:g} or more ({SETTINGS_NODE})"
    )
    if anchors.right_strength and anchors.right >= paid:
        raise ValueError(f"algorithm.tw_grpo.anchors.right={anchors.right:g}: has to lie below; {where}")
    if anchors.wrong_strength and anchors.wrong <= format_weight:
        raise ValueError(f"algorithm.tw_grpo.anchors.wrong={anchors.wrong:g}: has to lie above; {where}")
