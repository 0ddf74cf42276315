"""The V1 trainer ``tw_grpo``: verl's synchronous trainer with token weights between old log-probs and advantages."""

from __future__ import annotations

from typing import Any

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.padding_utils import upsample_batch_to_divisible_size
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.debug import marked_timer
from verl.utils.seqlen_balancing import calculate_workload, log_seqlen_unbalance
from verl.workers.utils.padding import response_from_nested

from verl_twgrpo.algorithm import token_weights
from verl_twgrpo.training.balance import check_groups_whole, order_rows
from verl_twgrpo.training.columns import as_list
from verl_twgrpo.training.dump import dump_step
from verl_twgrpo.training.engines.head_pass_mixin import PASS_KEY
from verl_twgrpo.training.losses import WEIGHTS_FIELD
from verl_twgrpo.training.metrics import WeightedGroup, reward_metrics, spread_metrics, weight_metrics
from verl_twgrpo.training.settings import TWGRPOConfig
from verl_twgrpo.training.worker import TWGRPOWorker


@register_trainer("tw_grpo")
class TWGRPOTrainer(PPOTrainerSync):
    """PPOTrainerSync that keeps groups whole on a rank and weights tokens (verl/trainer/ppo/v1/trainer_base.py).

    With alpha = 0 or scope "none" no weights pass runs: what is left is token-level GRPO (Eq. 11) on verl's own path.
    """

    def __init__(self, config: DictConfig) -> None:
        with open_dict(config):
            # verl compares the mode with this word in several places: replay buffer, checkpoints of the queue
            config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)
        self.tw_grpo: TWGRPOConfig = omega_conf_to_dataclass(config.algorithm.tw_grpo)
        self._groups: list[WeightedGroup] = []
        self._prompt_order: dict[str, int] = {}

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in (Role.Actor, Role.ActorRollout, Role.ActorRolloutRef):
            if role in self.role_worker_mapping:
                self.role_worker_mapping[role] = ray.remote(TWGRPOWorker)

    def fit(self, agent_loop_manager: Any) -> None:
        """verl's loop; whatever ends it, the dumps of the steps before it are on disk."""
        try:
            super().fit(agent_loop_manager)
        finally:
            self._dump_executor.shutdown(wait=True)

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        batch = super()._next_train_batch(num_prompts)
        for uid in list(batch["uid"]):
            self._prompt_order[uid] = len(self._prompt_order)
        return batch

    def _balance_batch(
        self, batch: KVBatchMeta, metrics: dict, logging_prefix: str = "global_seqlen", keep_minibatch: bool = False
    ) -> KVBatchMeta:
        """Groups whole on a rank, tokens balanced across ranks, rows in the order of their prompts.

        Rollouts arrive in any order; a fixed one makes two runs with the same rollouts take the same sums.
        """
        batch.reorder(sorted(range(len(batch)), key=lambda row: self._row_order(batch.keys[row])))
        self._prompt_order = {}
        if not self.tw_grpo.weighted:
            return super()._balance_batch(batch, metrics, logging_prefix, keep_minibatch)
        ranks = self._data_parallel_size()
        multiple = self._get_required_batch_multiple(ranks)
        batch = upsample_batch_to_divisible_size(batch, multiple, self.tokenizer.eos_token_id)
        while True:
            lengths = torch.tensor([tag["seq_len"] for tag in batch.tags], dtype=torch.int64)
            ordered = order_rows(groups_of(batch), calculate_workload(lengths).tolist(), ranks)
            if ordered is not None:
                break
            # Failed rollouts left groups of sizes that no split of these rows keeps whole: more padding makes room.
            batch = upsample_batch_to_divisible_size(batch, len(batch) + multiple, self.tokenizer.eos_token_id)
        order, rows_by_rank = ordered
        metrics.update(log_seqlen_unbalance(lengths.tolist(), rows_by_rank, prefix=logging_prefix))
        batch.reorder(order)
        check_groups_whole(groups_of(batch), ranks)
        return batch

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        self._groups = []
        if not self.tw_grpo.weighted:
            return super()._compute_old_log_prob(batch, metrics)
        batch.extra_info[PASS_KEY] = {
            "divergence": self.tw_grpo.divergence,
            "rows_per_chunk": self.tw_grpo.rows_per_chunk,
        }
        try:
            batch = super()._compute_old_log_prob(batch, metrics)
        finally:
            batch.extra_info.pop(PASS_KEY, None)
        with marked_timer("tw_grpo", self.timing_raw, color="blue"):
            passes = self.actor_rollout_wg.last_weights_pass()
            self._groups = self._weigh(batch, vocabulary_size=max(int(p["vocabulary_size"]) for p in passes))
        # The slowest rank's head pass; it stands in for the head's part of the old-log-prob step, where it ran.
        self.timing_raw["tw_grpo_head_pass"] = max(p["seconds"] for p in passes)
        metrics.update(weight_metrics(self._groups))
        return batch

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_advantage(batch, metrics)
        fields = ["rm_scores", "advantages", "extra_fields"]
        scale = self.tw_grpo.weighted and self.tw_grpo.placement == "outside"
        if scale:
            fields.append(WEIGHTS_FIELD)
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        uids = groups_of(batch)
        metrics.update(spread_metrics(data["rm_scores"].sum(dim=1), uids))
        infos = [(extra or {}).get("reward_extra_info", {}) for extra in as_list(data["extra_fields"])]
        metrics.update(reward_metrics([info for info, uid in zip(infos, uids, strict=True) if uid is not None]))
        if scale:
            # w * min(r A, clip(r) A) = min(r w A, clip(r) w A) for w >= 0: any policy loss takes the weights this way
            advantages, weights = data["advantages"].unbind(), data[WEIGHTS_FIELD].unbind()
            scaled = [a * w for a, w in zip(advantages, weights, strict=True)]
            tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=_nested({"advantages": scaled}))
        if self._groups and self.tw_grpo.dump_dir:
            with marked_timer("tw_grpo_dump", self.timing_raw):
                self._dump_futures.append(dump_step(self, batch, self._groups))
        return batch

    def _weigh(self, batch: KVBatchMeta, vocabulary_size: int) -> list[WeightedGroup]:
        """Weights of every group from the divergences that the workers stored; stores them by token."""
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["divergence", "response_mask"]
        )
        divergences = response_from_nested(data["divergence"], data["response_mask"]).unbind()
        lengths = data["response_mask"].offsets().diff().tolist()
        weights = [torch.ones(length) for length in lengths]
        rows_of: dict[str, list[int]] = {}
        for row, (uid, mask) in enumerate(zip(groups_of(batch), data["response_mask"].unbind(), strict=True)):
            if uid is not None and mask.any():
                rows_of.setdefault(uid, []).append(row)
        groups = []
        for uid, rows in rows_of.items():
            lengths_G = [lengths[row] for row in rows]
            divergence_T = divergences[rows[lengths_G.index(max(lengths_G))]]
            weights_T = token_weights(
                divergence_T,
                lengths_G,
                alpha=self.tw_grpo.alpha,
                weight=self.tw_grpo.weight,
                scope=self.tw_grpo.scope,
                kind=self.tw_grpo.divergence,
                vocabulary_size=vocabulary_size,
            )
            for row in rows:
                weights[row] = weights_T[: lengths[row]]
            groups.append(WeightedGroup(uid, rows, lengths_G, divergence_T, weights_T))
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=_nested({WEIGHTS_FIELD: weights}))
        return groups

    def _data_parallel_size(self) -> int:
        workers = self.actor_rollout_wg
        if "actor" not in workers._dispatch_info:
            workers._dispatch_info["actor"] = workers._query_dispatch_info("actor")
        return max(workers._dispatch_info["actor"]) + 1

    def _row_order(self, key: str) -> tuple[Any, ...]:
        uid, session, index = key.rsplit("_", 2)
        return self._prompt_order.get(uid, len(self._prompt_order)), uid, int(session), int(index)


def groups_of(batch: KVBatchMeta) -> list[str | None]:
    """The group (uid) of every row by its key ``{uid}_{session}_{index}``; None for verl's synthetic padding rows."""
    return [
        None if tag.get("is_padding", False) else key.rsplit("_", 2)[0]
        for key, tag in zip(batch.keys, batch.tags, strict=True)
    ]


def _nested(columns: dict[str, list[torch.Tensor]]) -> TensorDict:
    rows = len(next(iter(columns.values())))
    return TensorDict(
        {name: torch.nested.as_nested_tensor(values, layout=torch.jagged) for name, values in columns.items()},
        batch_size=rows,
    )
