"""verl's V1 trainers by their mode, ours over each, and what of a configuration depends on it."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf, open_dict

# verl's trainer.v1.trainer_mode -> the name under which ours is registered
OURS = {
    "sync": "tw_grpo",
    "colocate_async": "tw_grpo_colocate_async",
    "separate_async": "tw_grpo_separate_async",
}
# Our trainer takes their place without being named. `sync`, verl's default, is left to those who ask for it.
ASYNCHRONOUS = ("colocate_async", "separate_async")


def is_ours(config: DictConfig) -> bool:
    """Whether the run gets one of our trainers."""
    mode = config.trainer.v1.trainer_mode
    return mode in OURS.values() or mode in ASYNCHRONOUS


def verls_mode(config: DictConfig) -> str:
    """verl's word for the run's mode, whichever of the two names is set."""
    mode = config.trainer.v1.trainer_mode
    return next((verls for verls, ours in OURS.items() if mode == ours), mode)


def choose_trainer(config: DictConfig) -> None:
    """Put our trainer in the place of the asynchronous one that the run asks for, if it has ``algorithm.tw_grpo``."""
    mode = config.trainer.v1.trainer_mode
    if mode in ASYNCHRONOUS and OmegaConf.select(config, "algorithm.tw_grpo") is not None:
        with open_dict(config):
            config.trainer.v1.trainer_mode = OURS[mode]


def prompts_per_batch(config: DictConfig) -> tuple[str, int]:
    """The key that says how many prompts go through old log-probs and advantages together, and its value.

    ``separate_async`` takes a step in ``parameter_sync_step`` parts (verl/trainer/ppo/v1/trainer_base.py, ``step``).
    """
    if verls_mode(config) == "separate_async":
        return "actor_rollout_ref.actor.ppo_mini_batch_size", config.actor_rollout_ref.actor.ppo_mini_batch_size
    return "data.train_batch_size", config.data.train_batch_size
