"""What the study compares, as overrides of ``recipe=mini_clevrer``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verl_twgrpo.training.settings import SEEDED_SHUFFLING_LOOP

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

MEAN_ONE = "algorithm.tw_grpo.normalise=batch"
"""A weight is a learning rate too: this brings its mean over a batch to 1."""

MANY, SOME, ONE = 10, 5, 1
"""Seeds of an arm: of the primary comparisons, of the others, and of what shows no average."""


@dataclass(frozen=True)
class Arm:
    """How a run differs from recipe=mini_clevrer, which rewards softly (Eq. 7); its name in tables; seeds it has."""

    label: str
    overrides: tuple[str, ...]
    seeds: int = SOME


def _contrast(*settings: str) -> tuple[str, ...]:
    """VPPO's filter with other settings behind it."""
    return ("algorithm=vppo", *(f"++algorithm.tw_grpo.settings.{setting}" for setting in settings))


ARMS: dict[str, Arm] = {
    "grpo_exact": Arm("GRPO, exact reward", ("algorithm=grpo_token", EXACT)),
    "grpo_soft": Arm("GRPO, soft reward", ("algorithm=grpo_token",), MANY),
    "tw_grpo": Arm("TW-GRPO, paper", ("algorithm=tw_grpo",), MANY),
    "tw_grpo_mean1": Arm("TW-GRPO, mean 1", ("algorithm=tw_grpo", MEAN_ONE), MANY),
    "tw_grpo_released": Arm("TW-GRPO, released", ("algorithm=tw_grpo_released",)),
    "tw_grpo_live": Arm("TW-GRPO, live", ("algorithm=tw_grpo", "algorithm.tw_grpo.divergence=live")),
    "tw_grpo_shuffled": Arm(
        "TW-GRPO, weights shuffled", ("algorithm=tw_grpo", "algorithm.tw_grpo.control=shuffled"), MANY
    ),
    "tw_grpo_random": Arm(
        "TW-GRPO, weights of other responses", ("algorithm=tw_grpo", "algorithm.tw_grpo.control=random")
    ),
    "top_entropy": Arm("top 20% entropy", ("algorithm=top_entropy",)),
    "oracle": Arm("oracle", ("algorithm=oracle", MEAN_ONE), MANY),
    "contrast_blank": Arm("VPPO's filter, blank", (*_contrast("view=blank"), MEAN_ONE), MANY),
    "contrast_shuffled": Arm("VPPO's filter, shuffled frames", (*_contrast("view=shuffled"), MEAN_ONE)),
    "contrast_union": Arm("Video-KTR's union", ("algorithm=video_ktr", MEAN_ONE)),
    "contrast_divergence": Arm("blank x D_t", (*_contrast("view=blank", "combine=product"), MEAN_ONE)),
    "t_grpo": Arm(
        "T-GRPO",
        (
            "algorithm=grpo_token",
            "++algorithm.tw_grpo.temporal_bonus={}",
            f"actor_rollout_ref.rollout.agent.default_agent_loop={SEEDED_SHUFFLING_LOOP}",
        ),
    ),
    "alpha_0": Arm("TW-GRPO, alpha = 0", ("algorithm=tw_grpo", "algorithm.tw_grpo.alpha=0"), ONE),
    BLIND: Arm(
        "blind GRPO",
        ("algorithm=grpo_token", "data.train_files=${demo_dir}/data/" + BLANK_FILE.format(split="train")),
        ONE,
    ),
}

# how tables and figures call the models and the controls
LABELS = {
    START: "start model",
    **{name: arm.label for name, arm in ARMS.items()},
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
    """The start model's evaluation, then every arm of a seed before the next seed, each with as many as it has."""
    runs = [Planned(START, ("algorithm=grpo_token", "trainer.val_only=true", "trainer.val_before_train=true"))]
    return runs + [
        Planned(f"{arm}-s{seed}", (*ARMS[arm].overrides, f"data.seed={seed}"))
        for place, seed in enumerate(seeds)
        for arm in arms
        if place < ARMS[arm].seeds
    ]
