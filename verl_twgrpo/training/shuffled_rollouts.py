"""T-GRPO's rollouts on shuffled frames: asked for with every prompt that has a video, scored, and never trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from verl_twgrpo.algorithm.temporal_bonus import TemporalBonus
from verl_twgrpo.rows import as_list, parse_key, rows_by_group
from verl_twgrpo.training.settings import SHUFFLING_LOOP
from verl_twgrpo.training.shuffled_frames import ORDERED, SHUFFLED

# verl's column with a prompt's own number of rollouts (verl/trainer/ppo/v1/agent_loop_tq.py)
ROLLOUTS = "__rollout_n__"
# the name under which the bonus joins the scores of a response
SCORE = "temporal_bonus"


def ask(prompts: TensorDict, group_size: int, bonus: TemporalBonus) -> None:
    """Ask for more rollouts of each prompt with a video; the loop of shuffled_frames.py tells them by their number."""
    more = [bonus.responses(group_size) if _has_video(messages) else 0 for messages in as_list(prompts["raw_prompt"])]
    tu.assign_non_tensor_stack(prompts, ROLLOUTS, [group_size + extra for extra in more])
    tu.assign_non_tensor_stack(prompts, ORDERED, [group_size] * len(more))


def settle(batch: KVBatchMeta, group_size: int, bonus: TemporalBonus) -> tuple[KVBatchMeta, dict[str, float]]:
    """The batch without its shuffled rollouts, the bonus in its rewards and among its scores; and metrics.

    Raises:
        RuntimeError: the rollouts beyond the group saw the frames in order: another agent loop made them.
        ValueError: the reward has no score of the name that is the accuracy.
    """
    data = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=["rm_scores", "extra_fields"]
    )
    extra = [dict(of_row or {}) for of_row in as_list(data["extra_fields"])]
    rewards = list(data["rm_scores"].unbind())
    keys = [parse_key(key) for key in batch.keys]
    ordered_rows = [row for row, key in enumerate(keys) if key.session < group_size]
    accuracy = torch.tensor([_accuracy(fields, bonus.score) for fields in extra])
    p_of_prompts, paid = [], torch.zeros(len(keys))
    for rows in rows_by_group(key.uid for key in keys).values():
        ordered = [row for row in rows if keys[row].session < group_size]
        shuffled = [row for row in rows if keys[row].session >= group_size]
        for row in shuffled:
            if not extra[row].get(SHUFFLED):
                raise RuntimeError(
                    "algorithm.tw_grpo.temporal_bonus: a rollout that should have seen shuffled frames saw them in "
                    f"order. Another agent loop made it: leave agent_name={SHUFFLING_LOOP} or no agent_name to the rows"
                )
        if not ordered:
            continue
        lengths = torch.tensor([len(rewards[row]) for row in ordered])
        paid[ordered] = bonus.of_group(accuracy[ordered], accuracy[shuffled], lengths)
        if shuffled:
            p_of_prompts.append((accuracy[ordered].mean().item(), accuracy[shuffled].mean().item()))
    for row in ordered_rows:
        rewards[row] = rewards[row].clone()
        rewards[row][-1] += paid[row]
        info = {**extra[row].get("reward_extra_info", {}), SCORE: paid[row].item()}
        extra[row] = {**extra[row], "reward_extra_info": info}
    dropped = [key for row, key in enumerate(batch.keys) if keys[row].session >= group_size]
    if dropped:
        tq.kv_clear(keys=dropped, partition_id=batch.partition_id)
    batch = batch.select_keys([batch.keys[row] for row in ordered_rows])
    columns = {
        "rm_scores": torch.nested.as_nested_tensor([rewards[row] for row in ordered_rows], layout=torch.jagged),
        "extra_fields": [extra[row] for row in ordered_rows],
    }
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=tu.get_tensordict(columns))
    return batch, _metrics(p_of_prompts, paid[ordered_rows], bonus)


def _metrics(p_of_prompts: list[tuple[float, float]], paid_B: torch.Tensor, bonus: TemporalBonus) -> dict[str, float]:
    named = {"t_grpo/bonus_mean": paid_B.mean().item(), "t_grpo/prompts": float(len(p_of_prompts))}
    if p_of_prompts:
        ordered_P, shuffled_P = torch.tensor(p_of_prompts).unbind(dim=1)
        named |= {
            "t_grpo/accuracy_ordered": ordered_P.mean().item(),
            "t_grpo/accuracy_shuffled": shuffled_P.mean().item(),
            # p = p~ = 0 passes the test as well, and pays nobody
            "t_grpo/passed": ((ordered_P >= bonus.mu * shuffled_P) & (ordered_P > 0)).float().mean().item(),
        }
    return named


def _accuracy(fields: Mapping[str, Any], name: str) -> float:
    scores = fields.get("reward_extra_info", {})
    if name not in scores:
        raise ValueError(
            f"algorithm.tw_grpo.temporal_bonus.score={name}: the reward has no such score; choose from "
            f"{', '.join(scores)}"
        )
    return float(scores[name])


def _has_video(messages: Any) -> bool:
    return any(
        isinstance(part, Mapping) and (part.get("type") == "video" or part.get("video") is not None)
        for message in messages
        for part in (message["content"] if isinstance(message["content"], list) else ())
    )
