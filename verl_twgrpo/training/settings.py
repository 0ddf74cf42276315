"""``algorithm.tw_grpo``: the settings of token weighting, checked on the driver."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, get_args

from omegaconf import OmegaConf
from verl.base_config import BaseConfig
from verl.workers.config import PolicyLossConfig

from verl_twgrpo.algorithm.anchors import Anchors
from verl_twgrpo.algorithm.objective import WeightPlacement
from verl_twgrpo.algorithm.temporal_bonus import TemporalBonus
from verl_twgrpo.algorithm.weightings import Weighting, make_weighting
from verl_twgrpo.algorithm.weightings.apply import Control, Normalise
from verl_twgrpo.algorithm.weightings.settings import check_choice, check_number

M = TypeVar("M")

CHOICES = {"placement": get_args(WeightPlacement), "normalise": get_args(Normalise), "control": get_args(Control)}

# The weighting whose settings stand in algorithm.tw_grpo itself, where they were before there were others.
OWN_SETTINGS_OF = "group_divergence"
OWN_SETTINGS = ("divergence", "alpha", "weight", "scope")

SEEDED_LOOP = "seeded_single_turn_agent"
"""The agent loop of seeded_rollout.py, by the name that verl knows it by."""
SHUFFLING_LOOP = "shuffling_single_turn_agent"
SEEDED_SHUFFLING_LOOP = "seeded_shuffling_single_turn_agent"
"""Those of shuffled_frames.py."""

PACKED_GROUPS = ("auto", "true", "false")


def packed_groups_setting(algorithm: Any) -> str:
    """``algorithm.packed_groups`` as "auto", "true" or "false"; "false" where it is not set.

    Raises:
        ValueError: for anything else.
    """
    value = algorithm.get("packed_groups", False)
    text = str(value).lower()
    if text not in PACKED_GROUPS:
        raise ValueError(f"algorithm.packed_groups={value!r}: choose one of {', '.join(PACKED_GROUPS)}")
    return text


@dataclass
class TWGRPOConfig(BaseConfig):
    """Settings under ``algorithm.tw_grpo``.

    Args:
        weighting: name of a registered token weighting; docs/weightings.md lists them.
        settings: of that weighting; of "group_divergence" they are the four that follow.
        divergence: D_t, "jsd" (Eq. 4), "released" (the released code's) or "live" (over unfinished responses only).
        alpha: strength of the weighting; 0 is token-level GRPO (Eq. 11).
        weight: "one_plus" (1 + alpha * n) or "eq5" (Eq. 5 as printed).
        scope: positions that are weighted, Table A2: "all", "content", "padding", "none".
        placement: "outside" (w * min(...), the released code) or "eq6" (Eq. 6 as printed).
        normalise: brings the mean weight to 1 per "response" or over the "batch"; "none" leaves it.
        control: "shuffled" permutes the weights of each response over its tokens, "random" those of the batch over
            all of its tokens; "none" trains with the weights.
        seed: of what weightings and controls draw.
        std_eps: added to the standard deviation of a group's rewards (Eq. 1); the released code has 1e-4.
        std: what divides R - mean: the deviation of the "group" (Eq. 1), or that of the "task" (EMA-GRPO).
        std_decay: of the task's moving averages.
        std_limit: groups in which some |A| by the task's deviation would be above it are divided by their own.
        anchors: null, or what SOVA's virtual anchors are (fields of ``Anchors``); {} has the paper's.
        temporal_bonus: null, or T-GRPO's bonus (fields of ``TemporalBonus``); {} has the numbers of its code.
        tokens_per_chunk: tokens whose logits exist at one time in the weights pass; null chooses by device.
        dump_dir: folder for one compact file per step with what the figures need; null writes none.
        max_rollout_probs_diff: the first step stops the run if rollout and actor differ by more in the mean probability
            of the sampled tokens (verl's training/rollout_probs_diff_mean); null checks nothing.
        video_check_freq: steps between two measurements of how much log-probs fall when the video is blanked
            (tw_grpo/video_dependence); 0 measures nothing.
        video_check_rows: rows of such a measurement.
        media_freq: steps between two sets of pictures (weights by position, a group's tokens by weight) for the loggers
            that take some: tensorboard, wandb, swanlab, trackio, mlflow; 0 sends none.
        rows_per_chunk: the former name of tokens_per_chunk.
        detach: always true. The weights are those of the old policy: no gradient can flow through them.

    Raises:
        ValueError: with the key's name, for a value that is not possible.
    """

    weighting: str = OWN_SETTINGS_OF
    settings: Any = field(default_factory=dict)
    divergence: str = "jsd"
    alpha: float = 0.7
    weight: str = "one_plus"
    scope: str = "all"
    placement: str = "outside"
    normalise: Normalise = "none"
    control: Control = "none"
    seed: int = 0
    std_eps: float = 0.0
    std: str = "group"
    std_decay: float = 0.99
    std_limit: float = 5.0
    anchors: Any = None
    temporal_bonus: Any = None
    tokens_per_chunk: int | None = None
    dump_dir: str | None = None
    max_rollout_probs_diff: float | None = 0.02
    video_check_freq: int = 0
    video_check_rows: int = 8
    media_freq: int = 0
    rows_per_chunk: int | None = None
    detach: bool = True

    @property
    def made_anchors(self) -> Anchors | None:
        """The virtual anchors, None without."""
        return _made_if_set("anchors", self.anchors, Anchors)

    @property
    def made_temporal_bonus(self) -> TemporalBonus | None:
        """T-GRPO's bonus, None without."""
        return _made_if_set("temporal_bonus", self.temporal_bonus, TemporalBonus)

    @property
    def weighted(self) -> bool:
        """Whether there is anything to weigh: without it, training is token-level GRPO on verl's own path."""
        return self.make_weighting().active

    def make_weighting(self) -> Weighting:
        """The weighting with its settings."""
        settings = OmegaConf.to_container(self.settings) if OmegaConf.is_config(self.settings) else self.settings
        settings = dict(settings or {})
        own = {name: getattr(self, name) for name in OWN_SETTINGS}
        if self.weighting == OWN_SETTINGS_OF:
            if settings:
                name = next(iter(settings))
                raise ValueError(
                    f"algorithm.tw_grpo.settings.{name}: weighting {OWN_SETTINGS_OF} has its settings in "
                    f"algorithm.tw_grpo itself: {', '.join(OWN_SETTINGS)}"
                )
            return self._made(own, "algorithm.tw_grpo.")
        for name, value in own.items():
            if value != getattr(type(self), name):
                raise ValueError(
                    f"algorithm.tw_grpo.{name}={value!r}: a setting of weighting {OWN_SETTINGS_OF}; those of "
                    f"{self.weighting} stand in algorithm.tw_grpo.settings"
                )
        return self._made(settings, "algorithm.tw_grpo.settings.")

    def _made(self, settings: dict[str, Any], prefix: str) -> Weighting:
        try:
            return make_weighting(self.weighting, settings)
        except ValueError as error:
            unknown = str(error).startswith("weighting ")
            raise ValueError(f"{'algorithm.tw_grpo.weighting: ' if unknown else prefix}{error}") from None

    def __post_init__(self) -> None:
        if self.rows_per_chunk is not None:
            if self.tokens_per_chunk is not None:
                raise ValueError(
                    f"algorithm.tw_grpo.rows_per_chunk={self.rows_per_chunk!r}: the former name of tokens_per_chunk, "
                    "which is set too; leave it out"
                )
            _check_count("rows_per_chunk", self.rows_per_chunk)
            object.__setattr__(self, "tokens_per_chunk", self.rows_per_chunk)
        elif self.tokens_per_chunk is not None:
            _check_count("tokens_per_chunk", self.tokens_per_chunk)
        try:
            for name, allowed in CHOICES.items():
                check_choice(name, getattr(self, name), allowed)
            check_number("std_eps", self.std_eps)
            check_choice("std", self.std, ("group", "task"))
            check_number("std_decay", self.std_decay, 0, 1)
            check_number("std_limit", self.std_limit)
        except ValueError as error:
            raise ValueError(f"algorithm.tw_grpo.{error}") from None
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ValueError(f"algorithm.tw_grpo.seed={self.seed!r}: need a whole number")
        for name, least in (("video_check_freq", 0), ("video_check_rows", 1), ("media_freq", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"algorithm.tw_grpo.{name}={value!r}: need a whole number of {least} or more")
        limit = self.max_rollout_probs_diff
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit <= 1):
            raise ValueError(
                f"algorithm.tw_grpo.max_rollout_probs_diff={limit!r}: need null or a number above 0, up to 1"
            )
        if self.detach is not True:
            raise ValueError(
                f"algorithm.tw_grpo.detach={self.detach!r}: training takes the weights from the old policy, so no "
                "gradient can flow through them; leave it out"
            )
        self.make_weighting()
        _ = self.made_anchors, self.made_temporal_bonus


def _made_if_set(key: str, node: Any, made: type[M]) -> M | None:
    """An optional part of the settings; raises ``ValueError`` with the key of what is wrong."""
    if node is None:
        return None
    values = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
    known = [one.name for one in fields(made)]  # type: ignore[arg-type]
    if not isinstance(values, dict):
        raise ValueError(f"algorithm.tw_grpo.{key}={values!r}: need null or settings: {', '.join(known)}")
    for name in values:
        if name not in known:
            raise ValueError(f"algorithm.tw_grpo.{key}.{name}: no such setting; choose from {', '.join(known)}")
    try:
        return made(**values)
    except ValueError as error:
        raise ValueError(f"algorithm.tw_grpo.{key}.{error}") from None


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"algorithm.tw_grpo.{name}={value!r}: need null or 1 and more")


@dataclass
class TWGRPOPolicyLossConfig(PolicyLossConfig):
    """verl's policy-loss settings plus ours, so that the registered loss ``tw_grpo`` sees them."""

    tw_grpo: Any = field(default_factory=TWGRPOConfig)
