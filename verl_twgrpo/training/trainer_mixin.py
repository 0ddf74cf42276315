"""What our trainers put before verl's: token weights between old log-probs and advantages."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.padding_utils import upsample_batch_to_divisible_size
from verl.trainer.ppo.utils import Role
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.debug import marked_timer
from verl.utils.seqlen_balancing import calculate_workload, log_seqlen_unbalance
from verl.workers.utils.padding import response_from_nested

from verl_twgrpo.algorithm.task_deviation import TaskMoments
from verl_twgrpo.algorithm.token_classes import token_classes
from verl_twgrpo.algorithm.weightings import Group, Weighting, weigh_groups
from verl_twgrpo.algorithm.weightings.base import DIVERGENCE
from verl_twgrpo.algorithm.weightings.text import response_text
from verl_twgrpo.files import write_json
from verl_twgrpo.rewards.answers import LETTERS
from verl_twgrpo.rows import as_list
from verl_twgrpo.training import shuffled_rollouts
from verl_twgrpo.training.balance import check_groups_whole, order_rows
from verl_twgrpo.training.dump import StepDump
from verl_twgrpo.training.engines.head_pass_mixin import MIXTURE, PASS_KEY
from verl_twgrpo.training.engines.packed_groups_mixin import PACKED_KEY
from verl_twgrpo.training.groups import final_outputs, group_of_row, groups_of_batch, mixtures_of_outputs
from verl_twgrpo.training.input_checks import InputChecks
from verl_twgrpo.training.losses import WEIGHTS_FIELD, Told, told
from verl_twgrpo.training.media import Shown, log_pictures, pictures
from verl_twgrpo.training.metrics import class_metrics, packing_metrics, reward_metrics, spread_metrics, weight_metrics
from verl_twgrpo.training.prompt_order import PromptOrder
from verl_twgrpo.training.settings import TWGRPOConfig, packed_groups_setting
from verl_twgrpo.training.video_dependence import video_dependence
from verl_twgrpo.training.views import VIEW_KEY
from verl_twgrpo.training.worker import TWGRPOWorker

if TYPE_CHECKING:
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer as _Trainer  # what it goes before
else:
    _Trainer = object

logger = logging.getLogger(__name__)

# What a checkpoint of verl's does not hold, in its folder.
STATE_FILE = "tw_grpo.json"


class TokenWeights(InputChecks, _Trainer):
    """Goes before one of verl's V1 trainers: groups whole on a rank, tokens weighted (verl/trainer/ppo/v1).

    The old policy, from which weights come, is the actor recomputed by verl's old-log-prob step, whichever policy
    gave the responses. With alpha = 0 or scope "none" no weights pass runs: what is left is token-level GRPO (Eq. 11)
    on verl's own path.
    """

    verls_mode: str
    """verl's word for the mode of the trainer behind it."""
    worker_class: type[TWGRPOWorker] = TWGRPOWorker

    def __init__(self, config: DictConfig) -> None:
        with open_dict(config):
            # verl compares the mode with its words in several places: replay buffer, checkpoints of the queue
            config.trainer.v1.trainer_mode = self.verls_mode
        super().__init__(config)
        self.tw_grpo: TWGRPOConfig = omega_conf_to_dataclass(config.algorithm.tw_grpo)
        self.packed_groups = packed_groups_setting(config.algorithm)
        self.weighting: Weighting = self.tw_grpo.make_weighting()
        self._moments = TaskMoments(self.tw_grpo.std_decay) if self.tw_grpo.std == "task" else None
        self._temporal_bonus = self.tw_grpo.made_temporal_bonus
        self._groups: list[Group] = []
        self._prompt_order = PromptOrder()
        self._prompt_number: dict[str, int] = {}
        self._dump = StepDump(self.tw_grpo.dump_dir)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in (Role.Actor, Role.ActorRollout, Role.ActorRolloutRef):
            if role in self.role_worker_mapping:
                self.role_worker_mapping[role] = ray.remote(self.worker_class)

    def fit(self, agent_loop_manager: Any) -> None:
        """verl's loop; whatever ends it, the dumps of the steps before it are on disk."""
        self._dump.describe(self.config)
        try:
            super().fit(agent_loop_manager)
        finally:
            self._dump_executor.shutdown(wait=True)

    def _save_checkpoint(self) -> None:
        """verl's checkpoint, and before it (the step counts once verl has written its own) our state beside it."""
        state: dict[str, Any] = {}
        if self._moments is not None:
            state["task_moments"] = self._moments.state
        if self._prompt_order.state:  # prompts under way, which verl's checkpoint holds as well
            state["prompt_order"] = self._prompt_order.state
        if state:
            folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
            write_json(folder / STATE_FILE, state)
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if not self.global_steps:
            return
        trainer = self.config.trainer
        by_path = trainer.resume_mode == "resume_path"
        folder = trainer.resume_from_path if by_path else f"{trainer.default_local_dir}/global_step_{self.global_steps}"
        path = Path(folder) / STATE_FILE
        state = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self._prompt_order.restore(state.get("prompt_order", {}))
        if self._moments is None:
            return
        if "task_moments" in state:
            self._moments.restore(state["task_moments"])
        else:
            logger.warning("algorithm.tw_grpo.std=task: %s is not there, the averages of rewards start anew", path)

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        batch = super()._next_train_batch(num_prompts)
        if self._temporal_bonus is not None:
            shuffled_rollouts.ask(batch, self.config.actor_rollout_ref.rollout.n, self._temporal_bonus)
        self._prompt_order.add(list(batch["uid"]))
        return batch

    def _balance_batch(
        self, batch: KVBatchMeta, metrics: dict, logging_prefix: str = "global_seqlen", keep_minibatch: bool = False
    ) -> KVBatchMeta:
        """Groups whole on a rank, tokens balanced across ranks, rows in the order of their prompts.

        Rollouts arrive in any order; a fixed one makes two runs with the same rollouts take the same sums.
        """
        if self._temporal_bonus is not None:
            group_size = self.config.actor_rollout_ref.rollout.n
            batch, of_bonus = shuffled_rollouts.settle(batch, group_size, self._temporal_bonus)
            metrics.update(of_bonus)
        batch.reorder(sorted(range(len(batch)), key=lambda row: self._prompt_order.sort_key(batch.keys[row])))
        self._prompt_number = self._prompt_order.take(uid for uid in group_of_row(batch) if uid is not None)
        if not self.weighting.active and self.packed_groups == "false":
            return super()._balance_batch(batch, metrics, logging_prefix, keep_minibatch)
        ranks = self._data_parallel_size()
        multiple = self._get_required_batch_multiple(ranks)
        batch = upsample_batch_to_divisible_size(batch, multiple, self.tokenizer.eos_token_id)
        actor = self.config.actor_rollout_ref
        mini_batch_rows = actor.actor.ppo_mini_batch_size * actor.rollout.n // ranks
        while True:
            lengths = torch.tensor([tag["seq_len"] for tag in batch.tags], dtype=torch.int64)
            workloads = calculate_workload(lengths).tolist()
            ordered = order_rows(group_of_row(batch), workloads, ranks, mini_batch_rows)
            if ordered is not None:
                break
            if not self.weighting.active:
                # nothing needs whole groups: their parts are packed on each rank
                return super()._balance_batch(batch, metrics, logging_prefix, keep_minibatch)
            # Failed rollouts left groups of sizes that no split of these rows keeps whole: more padding makes room.
            batch = upsample_batch_to_divisible_size(batch, len(batch) + multiple, self.tokenizer.eos_token_id)
        order, rows_by_rank = ordered
        metrics.update(log_seqlen_unbalance(lengths.tolist(), rows_by_rank, prefix=logging_prefix))
        batch.reorder(order)
        check_groups_whole(group_of_row(batch), ranks)
        return batch

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """verl's step with the head pass in it where the weighting reads a divergence."""
        self._groups = []
        self._flag_packing(batch)
        weighting = self.weighting
        if not weighting.active:
            return super()._compute_old_log_prob(batch, metrics)
        vocabulary_size = None
        if weighting.divergence is None:
            batch = super()._compute_old_log_prob(batch, metrics)
        else:
            mixtures = mixtures_of_outputs(batch.keys)
            if mixtures is not None:
                _store(batch, TensorDict({MIXTURE: torch.tensor(mixtures)}, batch_size=len(mixtures)))
            batch.extra_info[PASS_KEY] = {
                "divergence": weighting.divergence,
                "tokens_per_chunk": self.tw_grpo.tokens_per_chunk,
            }
            try:
                batch = super()._compute_old_log_prob(batch, metrics)
            finally:
                batch.extra_info.pop(PASS_KEY, None)
            passes = self.actor_rollout_wg.last_weights_pass()
            vocabulary_size = max(int(p["vocabulary_size"]) for p in passes)
            # The slowest rank's head pass; it stands in for the head's part of the old-log-prob step, where it ran.
            before = self.timing_raw.get("tw_grpo_head_pass", 0.0)  # a step may have several batches
            self.timing_raw["tw_grpo_head_pass"] = before + max(p["seconds"] for p in passes)
        # Taken now: rejection of rollouts, which comes with the advantages, changes the masks.
        masks = self._fetch(batch, ["response_mask"])["response_mask"].unbind()
        self._groups = groups_of_batch(batch, masks, self.global_steps, self._prompt_number)
        for group in self._groups:
            group.vocabulary_size = vocabulary_size
        for column, view in weighting.extra_passes.items():
            with marked_timer("tw_grpo_extra_pass", self.timing_raw, color="blue"):
                self._extra_pass(batch, column, view)
        return batch

    def _extra_pass(self, batch: KVBatchMeta, column: str, view: str | Mapping[str, Any]) -> None:
        """Log-probs of the same tokens under an altered video, into ``column``; the workers alter it."""
        named = {"name": view} if isinstance(view, str) else dict(view)
        self._flag_packing(batch)
        batch.extra_info |= {
            VIEW_KEY: {**named, "seed": self.tw_grpo.seed, "step": self.global_steps},
            "calculate_entropy": False,
            "compute_loss": False,
            "temperature": self.config.actor_rollout_ref.rollout.temperature,
        }
        try:
            self.actor_rollout_wg.compute_log_prob(batch)
        finally:
            batch.extra_info.pop(VIEW_KEY, None)
        data = self._fetch(batch, ["log_probs", "response_mask"])
        log_probs = response_from_nested(data["log_probs"], data["response_mask"]).unbind()
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=_nested({column: list(log_probs)}))

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        self._flag_packing(batch)
        return super()._compute_ref_log_prob(batch, metrics)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        self._flag_packing(batch)
        batch = super()._update_actor(batch, metrics)
        if self.packed_groups != "false":
            metrics.update(packing_metrics(self.actor_rollout_wg.take_packing_counts()))
        return batch

    def _flag_packing(self, batch: KVBatchMeta) -> None:
        """What the engine reads; verl makes a batch's extra_info anew after each pass."""
        if self.packed_groups != "false":
            batch.extra_info[PACKED_KEY] = self.packed_groups

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        data = self._fetch(batch, ["rm_scores", "extra_fields"])
        uids = group_of_row(batch)
        scores = [
            None if uid is None else (extra or {}).get("reward_extra_info", {})
            for extra, uid in zip(as_list(data["extra_fields"]), uids, strict=True)
        ]
        settings = self.tw_grpo
        with told(Told(final_outputs(batch.keys), scores, settings.made_anchors, self._moments, settings.std_limit)):
            batch = super()._compute_advantage(batch, metrics)
        if self.tw_grpo.video_check_freq and self.global_steps % self.tw_grpo.video_check_freq == 0:
            with marked_timer("tw_grpo_video_check", self.timing_raw, color="blue"):
                metrics.update(video_dependence(self, batch))
        metrics.update(spread_metrics(data["rm_scores"].sum(dim=1), uids))
        metrics.update(reward_metrics([score for score in scores if score is not None]))
        if self.weighting.active:
            with marked_timer("tw_grpo", self.timing_raw, color="blue"):
                metrics.update(self._weigh(batch))
        if self._groups and self.tw_grpo.dump_dir:
            with marked_timer("tw_grpo_dump", self.timing_raw):
                self._dump_futures.append(self._dump.submit(self, batch, self._groups))
        if self._groups and self.tw_grpo.media_freq and self.global_steps % self.tw_grpo.media_freq == 0:
            with marked_timer("tw_grpo_media", self.timing_raw):
                log_pictures(self.logger, self._pictures(batch), self.global_steps)
        return batch

    def _pictures(self, batch: KVBatchMeta) -> dict[str, Any]:
        """Of all groups their weights, and of the one whose rewards differ most its tokens."""
        data = self._fetch(batch, ["responses", "rm_scores"])
        responses, rewards_B = data["responses"].unbind(), data["rm_scores"].sum(dim=1)
        group = max(self._groups, key=lambda one: rewards_B[one.rows].std(correction=0).item())
        shown = [
            Shown(
                f"reward {rewards_B[row].item():.2f}",
                [self.tokenizer.decode([token]) for token in responses[row].tolist()],
                weights_L.tolist(),
            )
            for row, weights_L in zip(group.rows, group.weights, strict=True)
        ]
        return pictures(self._groups, shown, self.global_steps)

    def _weigh(self, batch: KVBatchMeta) -> dict[str, float]:
        """Weights of every token of the batch from the columns that the weighting reads; applies or stores them."""
        settings = self.tw_grpo
        self._read_columns(batch)
        nan_tokens = weigh_groups(self.weighting, self._groups, settings.normalise, settings.control, settings.seed)
        advantages = self._fetch(batch, ["advantages"])["advantages"].unbind()
        weights = [torch.ones(len(row)) for row in advantages]
        for group in self._groups:
            for row, weights_L in zip(group.rows, group.weights, strict=True):
                weights[row] = weights_L
        columns = {WEIGHTS_FIELD: weights}
        if settings.placement == "outside":
            # w * min(r A, clip(r) A) = min(r w A, clip(r) w A) for w >= 0: any policy loss takes the weights this way
            columns["advantages"] = [a * w for a, w in zip(advantages, weights, strict=True)]
        _store(batch, _nested(columns))
        return weight_metrics(self._groups, nan_tokens) | class_metrics(self._groups, self._token_classes(batch))

    def _token_classes(self, batch: KVBatchMeta) -> dict[int, list[str]]:
        """By row of the batch, for rows that are in a group."""
        responses = self._fetch(batch, ["responses"])["responses"].unbind()
        rows = {row: responses[row].tolist() for group in self._groups for row in group.rows}
        text = {token: self.tokenizer.decode([token]) for token in set().union(*rows.values())}
        return {row: token_classes([text[token] for token in ids], LETTERS) for row, ids in rows.items()}

    def _read_columns(self, batch: KVBatchMeta) -> None:
        of_text = self.weighting.text_columns
        for name in of_text:
            self._read_text_column(batch, name)
        names = [name for name in self.weighting.read_columns() if name not in of_text]
        if not names:
            return
        data = self._fetch(batch, [*names, "response_mask"])
        for name in names:
            # what comes from a worker covers the prompt as well
            whole = name == DIVERGENCE
            column = (response_from_nested(data[name], data["response_mask"]) if whole else data[name]).unbind()
            for group in self._groups:
                group.columns[name] = [column[row].float() for row in group.rows]

    def _responses_are_current(self) -> bool:
        # else some may be older: they were under way at an update, or come from a checkpoint
        return self.verls_mode == "sync" or self.global_steps == 1

    def _read_text_column(self, batch: KVBatchMeta, name: str) -> None:
        column = self.weighting.text_columns[name]
        data = self._fetch(batch, ["responses", "extra_info"])
        responses, infos = data["responses"].unbind(), as_list(data["extra_info"])
        for group in self._groups:
            said = column.read((infos[group.rows[0]] or {}).get(column.field))
            group.columns[name] = [
                column.mark(response_text(responses[row].tolist(), self.tokenizer.decode), said) for row in group.rows
            ]

    def _fetch(self, batch: KVBatchMeta, fields: list[str]) -> TensorDict:
        return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)

    def _data_parallel_size(self) -> int:
        workers = self.actor_rollout_wg
        if "actor" not in workers._dispatch_info:
            workers._dispatch_info["actor"] = workers._query_dispatch_info("actor")
        return max(workers._dispatch_info["actor"]) + 1


def _store(batch: KVBatchMeta, columns: TensorDict) -> None:
    """Store columns with the batch's rows, and name them among its fields: the workers are sent no others."""
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=columns)
    if batch.fields is not None:
        batch.fields = [*batch.fields, *sorted(set(columns.keys()) - set(batch.fields))]


def _nested(columns: dict[str, list[torch.Tensor]]) -> TensorDict:
    rows = len(next(iter(columns.values())))
    return TensorDict(
        {name: torch.nested.as_nested_tensor(values, layout=torch.jagged) for name, values in columns.items()},
        batch_size=rows,
    )
