"""Groups of responses, from which advantages and weights come."""

from __future__ import annotations

from omegaconf import DictConfig

from verl_twgrpo.training.batches import sequence_parallel_size
from verl_twgrpo.training.modes import prompts_per_batch

from .registry import check


@check()
def check_group(config: DictConfig) -> None:
    n = config.actor_rollout_ref.rollout.n
    if n < 2:
        raise ValueError(f"actor_rollout_ref.rollout.n={n}: one response is no group; set it to 2 or more (paper: 8)")


@check(runs="training")
def check_temperature(config: DictConfig) -> None:
    temperature = config.actor_rollout_ref.rollout.temperature
    if temperature <= 0:
        raise ValueError(
            f"actor_rollout_ref.rollout.temperature={temperature}: the responses of a group would be one and the same, "
            "so that nothing is learned; set it above 0 (paper: 1.0)"
        )


@check(runs="weighted")
def check_whole_groups(config: DictConfig) -> None:
    _, sequence_parallel = sequence_parallel_size(config)
    ranks = config.trainer.n_gpus_per_node * config.trainer.nnodes // sequence_parallel
    key, prompts = prompts_per_batch(config)
    if ranks and prompts % ranks:
        raise ValueError(
            f"{key}={prompts}: {ranks} data-parallel ranks (trainer.n_gpus_per_node * trainer.nnodes) cannot share it "
            "in whole groups; make it a multiple"
        )
