"""What the study compares, as overrides of ``recipe=mini_clevrer``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

START = "start"
"""The run that only evaluates the start model; it has no seed."""

BLIND = "blind"
"""The arm that is trained on blank frames, and so compared on blank frames."""

BEST_CONSTANT, UNIFORM, OBSERVED = "best_constant", "uniform_set", "copies_observed"
"""Controls: answers of no model."""

RECORD = "finished.json"
"""What a finished run has in its folder: its overrides, seconds and versions. A folder without it is not read."""

SOURCE, BLANK_SOURCE = "mini_clevrer", "mini_clevrer_blank"
"""Data sources: questions with their videos, and the same questions about a video that shows nothing."""

BLANK_FILE = "{split}_blank.parquet"

EXACT = "reward.custom_reward_function.reward_kwargs.mode=exact"

# arm -> how it differs from recipe=mini_clevrer, which rewards softly (Eq. 7)
ARMS: dict[str, tuple[str, ...]] = {
    "grpo_exact": ("algorithm=grpo_token", EXACT),
    "grpo_soft": ("algorithm=grpo_token",),
    "tw_grpo": ("algorithm=tw_grpo",),
    "tw_grpo_released": ("algorithm=tw_grpo_released",),
    "tw_grpo_live": ("algorithm=tw_grpo", "algorithm.tw_grpo.divergence=live"),
    "alpha_0": ("algorithm=tw_grpo", "algorithm.tw_grpo.alpha=0"),
    BLIND: ("algorithm=grpo_token", "data.train_files=${demo_dir}/data/" + BLANK_FILE.format(split="train")),
}
# once is enough: what they show is no average
ONE_SEED = ("alpha_0", BLIND)

# how tables and figures call the models and the controls
LABELS = {
    START: "start model",
    "grpo_exact": "GRPO, exact reward",
    "grpo_soft": "GRPO, soft reward",
    "tw_grpo": "TW-GRPO, paper",
    "tw_grpo_released": "TW-GRPO, released",
    "tw_grpo_live": "TW-GRPO, live",
    "alpha_0": "TW-GRPO, alpha = 0",
    BLIND: "blind GRPO",
    BEST_CONSTANT: "best constant answer",
    UNIFORM: "set drawn uniformly",
    OBSERVED: "copies what was observed",
}


@dataclass(frozen=True)
class Planned:
    """A run to make: its name, which is its folder's, and its overrides."""

    name: str
    overrides: tuple[str, ...]


def plan(arms: Sequence[str], seeds: Sequence[int]) -> list[Planned]:
    """The start model's evaluation, then all arms of a seed before the next seed, then those that run once."""
    runs = [Planned(START, ("algorithm=grpo_token", "trainer.val_only=true", "trainer.val_before_train=true"))]
    often, once = ([arm for arm in arms if (arm in ONE_SEED) is single] for single in (False, True))
    pairs = [*((arm, seed) for seed in seeds for arm in often), *((arm, seeds[0]) for arm in once)]
    return runs + [Planned(f"{arm}-s{seed}", (*ARMS[arm], f"data.seed={seed}")) for arm, seed in pairs]
