"""How tables and figures call the study's models, and the colour that each keeps in all figures."""

from __future__ import annotations

from verl_twgrpo.mini_clevrer.study.accuracy import BEST_CONSTANT, BLIND, OBSERVED, UNIFORM
from verl_twgrpo.mini_clevrer.study.arms import START
from verl_twgrpo.report.style import COLOURS

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

# the two that the study compares have the palette's first colours
ARM_COLOURS = dict(
    zip(
        ("grpo_soft", "tw_grpo", "tw_grpo_released", "tw_grpo_live", "grpo_exact", "alpha_0", BLIND),
        COLOURS,
        strict=True,
    )
)
OTHER_COLOUR = "#777777"
"""The start model and the controls."""
