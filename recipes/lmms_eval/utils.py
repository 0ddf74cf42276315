"""What the task files call: rows of `verl-twgrpo data convert` as questions of lmms-eval, and Eq. 7 as its score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from verl_twgrpo.rewards import compute_score

# as `verl-twgrpo eval`: tags, or the letters alone
LENIENT = ("bare",)


def videos(doc: Mapping[str, Any]) -> list[str]:
    """The path of the row's video."""
    return [video["video"] for video in doc["videos"]]


def question(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """The prompt that the row trains with, without the place of its video, which lmms-eval puts first as well."""
    return doc["prompt"][0]["content"].removeprefix("<video>")


def letters(doc: Mapping[str, Any]) -> str:
    """The true letters: ``A,C``."""
    return doc["reward_model"]["ground_truth"]


def scores(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Exact and soft (Eq. 7) accuracy of the one response."""
    found = compute_score(doc["data_source"], results[0], letters(doc), doc["extra_info"], lenient=list(LENIENT))
    return {"strict_accuracy": float(found["accuracy"]), "soft_accuracy": float(found["soft_accuracy"])}
