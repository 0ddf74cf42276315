"""Tokens that owe something to the video: their log-prob falls when the video is altered.

d_it = log p(y_it | video) - log p(y_it | altered video), one more no-gradient log-prob pass per altered view over the
same tokens, grid and positions (training/views.py). Then

- score S of d: ``abs`` |d| (Video-KTR), ``k3`` exp(-d) - 1 + d (VPPO, PGPO: an estimate of the KL; -d clamped to +-20
  and the result to 10, as VPPO's code does), ``signed`` d;
- reduce: ``top_q`` 1 for the top share ``keep`` of S in the response, else 0, several views together by union;
  ``curve`` (PGPO) with I = minmax(log(1 + S)): I / tau below tau, 1 + beta (I - tau) / (1 - tau) above; ``minmax``
  1 + alpha minmax(S);
- trajectory_min b below 1 (VPPO): the whole response by b + (c - b) n_i, n_i the min-max of mean_t S_it over the group
  and c such that the mean over the group is 1;
- combine with the group's divergence: ``product`` with TW-GRPO's 1 + alpha n_t, ``union`` with the top share of D_t.

A response whose |d| stays below 1e-3 everywhere (no video, or one that it never looks at) weighs 1. Presets under the
names people know: vppo (arXiv 2510.09285), pgpo (2604.01840), video_ktr (2601.19686), tapo; what each leaves out of its
paper stands in its YAML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from verl_twgrpo.algorithm.divergences import get_divergence
from verl_twgrpo.algorithm.weightings.base import WEIGHTINGS, Group, Weighting
from verl_twgrpo.algorithm.weightings.group_divergence import token_weights
from verl_twgrpo.algorithm.weightings.scores import min_max, top_share
from verl_twgrpo.algorithm.weightings.settings import check_choice, check_number

VideoView = Literal["blank", "patches", "frozen", "shuffled", "sparse"]
Score = Literal["abs", "k3", "signed"]
Reduce = Literal["top_q", "curve", "minmax"]
Combine = Literal["off", "product", "union"]

# Two passes over the same input differ by less; what a video decides differs by far more.
NOISE_NATS = 1e-3


@dataclass(frozen=True)
class VideoContrastSettings:
    """Settings of ``video_contrast``; the module's docstring has the formulae.

    view: one altered view, or two or more joined by "+" (``top_q`` only). share: of patches that "patches" blackens.
    stride: of temporal patches that "sparse" holds. score, reduce, keep, tau, beta, alpha, trajectory_min, combine: as
    there. with_entropy: the top share of entropies joins the union (Video-KTR). divergence: of ``combine``.
    """

    view: str = "blank"
    share: float = 0.5
    stride: int = 4
    score: str = "abs"
    reduce: str = "minmax"
    keep: float = 0.4
    tau: float = 0.4
    beta: float = 2.0
    alpha: float = 0.7
    trajectory_min: float = 1.0
    with_entropy: bool = False
    combine: str = "off"
    divergence: str = "jsd"

    @property
    def views(self) -> list[str]:
        return self.view.split("+")

    def __post_init__(self) -> None:
        for view in str(self.view).split("+"):
            check_choice("view", view, get_args(VideoView))
        if len(set(self.views)) < len(self.views):
            raise ValueError(f"view={self.view!r}: a view stands there twice")
        check_choice("score", self.score, get_args(Score))
        check_choice("reduce", self.reduce, get_args(Reduce))
        check_choice("combine", self.combine, get_args(Combine))
        for name in ("share", "keep", "trajectory_min"):
            check_number(name, getattr(self, name), 0, 1)
        for name in ("beta", "alpha"):
            check_number(name, getattr(self, name))
        check_number("tau", self.tau, 0, 1)
        if not 0 < self.tau < 1:
            raise ValueError(f"tau={self.tau!r}: need a number between 0 and 1")
        if isinstance(self.stride, bool) or not isinstance(self.stride, int) or self.stride < 1:
            raise ValueError(f"stride={self.stride!r}: need a whole number of 1 or more")
        if self.combine != "off":
            get_divergence(self.divergence)
        if self.reduce != "top_q":
            if len(self.views) > 1 or self.with_entropy or self.combine == "union":
                raise ValueError(f"reduce={self.reduce!r}: several views, with_entropy and a union need reduce=top_q")
            if self.reduce == "curve" and self.score == "signed":
                raise ValueError("score='signed': the curve takes log(1 + S), which needs a score of 0 or more")


@WEIGHTINGS.register
class VideoContrast(Weighting):
    """Weights from how much log-probs change when the video is altered."""

    name = "video_contrast"
    Settings = VideoContrastSettings
    off = {"reduce": "minmax", "alpha": 0.0}

    @property
    def columns(self) -> tuple[str, ...]:
        return ("old_log_probs", "entropy") if self.settings.with_entropy else ("old_log_probs",)

    @property
    def divergence(self) -> str | None:
        return None if self.settings.combine == "off" else self.settings.divergence

    @property
    def extra_passes(self) -> Mapping[str, Mapping[str, Any]]:
        own = {"patches": {"share": self.settings.share}, "sparse": {"stride": self.settings.stride}}
        return {f"log_probs_{view}": {"name": view, **own.get(view, {})} for view in self.settings.views}

    @property
    def active(self) -> bool:
        settings = self.settings
        if settings.trajectory_min < 1 or (settings.combine == "product" and settings.alpha > 0):
            return True
        return {"top_q": settings.keep < 1, "curve": True, "minmax": settings.alpha > 0}[settings.reduce]

    def weigh(self, group: Group) -> list[torch.Tensor]:
        settings = self.settings
        weights, means = [], []
        for response, mask in enumerate(group.masks):
            weights_L = torch.ones(len(mask))
            differences = [
                (group.columns["old_log_probs"][response] - group.columns[name][response])[mask]
                for name in self.extra_passes
            ]
            seen = mask.any() and max(difference.abs().max().item() for difference in differences) >= NOISE_NATS
            scores = [_score(difference, settings.score) for difference in differences]
            means.append(torch.stack([score.mean() for score in scores]).mean() if seen else None)
            if seen:
                further = [group.columns["entropy"][response][mask]] if settings.with_entropy else []
                if settings.combine == "union":
                    further.append(group.columns["divergence"][response][mask])
                weights_L[mask] = self._reduced(scores, further)
            weights.append(weights_L)
        if settings.combine == "product":
            weights_T = token_weights(
                group.divergence_T, group.lengths, settings.alpha, kind=settings.divergence,
                vocabulary_size=group.vocabulary_size, own_T=group.own_T,
            )  # fmt: skip
            weights = [weights_L * weights_T[: len(weights_L)] for weights_L in weights]
        factors = _trajectories(means, settings.trajectory_min)
        return [weights_L * factor for weights_L, factor in zip(weights, factors, strict=True)]

    def _reduced(self, scores: list[torch.Tensor], further: list[torch.Tensor]) -> torch.Tensor:
        settings = self.settings
        if settings.reduce == "top_q":
            return torch.stack([top_share(values, settings.keep) for values in (*scores, *further)]).any(0).float()
        (score,) = scores
        if settings.reduce == "minmax":
            return 1 + settings.alpha * min_max(score)
        importance = min_max(torch.log1p(score))
        above = 1 + settings.beta * (importance - settings.tau) / (1 - settings.tau)
        return torch.where(importance < settings.tau, importance / settings.tau, above)


def _score(difference: torch.Tensor, kind: str) -> torch.Tensor:
    if kind == "k3":
        # expm1 keeps the small values that exp - 1 would round away
        other = (-difference).clamp(-20, 20)
        return (other.expm1() - other).clamp(0, 10)
    return difference.abs() if kind == "abs" else difference


def _trajectories(means: list[torch.Tensor | None], least: float) -> list[float]:
    """A factor per response: ``least`` for the smallest mean score, mean 1 over the responses that have one."""
    known = [mean for mean in means if mean is not None]
    if least == 1 or not known:
        return [1.0] * len(means)
    n = iter(min_max(torch.stack(known)).tolist())
    normalised = [None if mean is None else next(n) for mean in means]
    total = sum(value for value in normalised if value is not None)
    if not total:
        return [1.0] * len(means)
    width = (1 - least) * len(known) / total
    return [1.0 if value is None else least + width * value for value in normalised]
