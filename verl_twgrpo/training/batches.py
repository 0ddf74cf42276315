"""Batch geometry of a run, and the mistakes in it that verl would only find in its first step, or never."""

from __future__ import annotations

import math
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf


@dataclass(frozen=True)
class Batches:
    """How a step's responses are spread and used; counts are of rows (responses) where nothing else is said.

    ranks: data-parallel ranks. rows, padding: of a step, the latter put in by verl so that updates come out even.
    groups_per_rank, rows_per_rank: of a step. rows_per_update: over all ranks. updates: optimizer steps per step.
    """

    prompts: int
    n: int
    ranks: int
    rows: int
    padding: int
    groups_per_rank: float
    rows_per_rank: int
    rows_per_update: int
    updates: int


def batches(config: DictConfig) -> Batches:
    """The geometry of a configuration. Raises ``ValueError`` naming the key of what cannot work."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    world = config.trainer.nnodes * config.trainer.n_gpus_per_node
    key, sequence_parallel = sequence_parallel_size(config)
    if world < 1 or world % sequence_parallel:
        raise ValueError(
            f"{key}={sequence_parallel}: does not divide {world} GPUs (trainer.nnodes * trainer.n_gpus_per_node)"
        )
    per_engine = rollout.tensor_model_parallel_size * rollout.data_parallel_size * rollout.pipeline_model_parallel_size
    if world % per_engine:
        raise ValueError(
            f"actor_rollout_ref.rollout.tensor_model_parallel_size={rollout.tensor_model_parallel_size}: engines of "
            f"{per_engine} GPUs do not divide {world} GPUs (trainer.nnodes * trainer.n_gpus_per_node)"
        )
    ranks = world // sequence_parallel
    prompts, n = config.data.train_batch_size, rollout.n
    rows_per_update = actor.ppo_mini_batch_size * n
    if rows_per_update % ranks:
        raise ValueError(
            f"actor_rollout_ref.actor.ppo_mini_batch_size={actor.ppo_mini_batch_size}: an update of so many prompts x "
            f"{n} responses (actor_rollout_ref.rollout.n) does not divide by {ranks} data-parallel ranks"
        )
    # verl fills up with synthetic rows (trainer_base.py, _get_required_batch_multiple)
    multiple = math.lcm(ranks, rows_per_update)
    rows = math.ceil(prompts * n / multiple) * multiple
    made = Batches(
        prompts=prompts,
        n=n,
        ranks=ranks,
        rows=rows,
        padding=rows - prompts * n,
        groups_per_rank=prompts / ranks,
        rows_per_rank=rows // ranks,
        rows_per_update=rows_per_update,
        updates=rows // rows_per_update * actor.ppo_epochs,
    )
    _check_micro_batches(config, made)
    return made


def sequence_parallel_size(config: DictConfig) -> tuple[str, int]:
    """The key that sets the actor's Ulysses size, and the size; the older key wins (verl/workers/config/actor.py)."""
    old, new = (
        "actor_rollout_ref.actor.ulysses_sequence_parallel_size",
        "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size",
    )
    sizes = {key: OmegaConf.select(config, key) or 1 for key in (old, new)}
    return (old, sizes[old]) if sizes[old] > 1 or sizes[new] == 1 else (new, sizes[new])


def _check_micro_batches(config: DictConfig, made: Batches) -> None:
    """Micro-batches of the update and of the log-prob step (verl/workers/engine/utils.py, prepare_micro_batches)."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    longest = rollout.prompt_length + rollout.response_length
    for key, dynamic, tokens, size, rows in (
        (
            "actor_rollout_ref.actor.ppo_{}",
            actor.use_dynamic_bsz,
            actor.ppo_max_token_len_per_gpu,
            actor.ppo_micro_batch_size_per_gpu,
            made.rows_per_update // made.ranks,
        ),
        (
            "actor_rollout_ref.rollout.log_prob_{}",
            rollout.log_prob_use_dynamic_bsz,
            rollout.log_prob_max_token_len_per_gpu,
            rollout.log_prob_micro_batch_size_per_gpu,
            made.rows_per_rank,
        ),
    ):
        if dynamic and tokens < longest:
            raise ValueError(
                f"{key.format('max_token_len_per_gpu')}={tokens}: a row may have {longest} tokens (prompt "
                f"{rollout.prompt_length} + response {rollout.response_length}), which micro-batches do not cut; set "
                f"it to {longest} or more"
            )
        if not dynamic and size is not None and rows % size:
            raise ValueError(
                f"{key.format('micro_batch_size_per_gpu')}={size}: does not divide the {rows} rows that a rank gets"
            )
