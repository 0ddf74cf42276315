"""TW-GRPO (arXiv 2505.24718) in pure torch: divergence of a group, token weights, objective, advantage.

Tensor names carry their shape: G responses of one group, T positions, V vocabulary, H hidden size, L tokens of one
response, N packed tokens of a group (response after response), B rows of a batch.
"""

from verl_twgrpo.algorithm.advantage import group_normalised_advantage
from verl_twgrpo.algorithm.divergences import group_divergence
from verl_twgrpo.algorithm.head_pass import GroupDivergence, chunked_group_divergence
from verl_twgrpo.algorithm.objective import tw_grpo_policy_loss, weighted_clipped_objective
from verl_twgrpo.algorithm.weightings.group_divergence import degenerate_range, token_weights

__all__ = [
    "GroupDivergence",
    "chunked_group_divergence",
    "degenerate_range",
    "group_divergence",
    "group_normalised_advantage",
    "token_weights",
    "tw_grpo_policy_loss",
    "weighted_clipped_objective",
]
