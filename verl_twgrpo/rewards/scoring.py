"""Score a response to a multi-answer question: accuracy (soft or exact) plus a weighted format reward."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, fields
from typing import Any

from .answers import CLOSE_TAG, LETTERS, OPEN_TAG, leniency_names, parse_answer
from .truth import option_letters, read_truth

MODES = ("soft", "exact")
REWARD_MODEL_KWARGS = frozenset({"reward_router_address", "reward_model_tokenizer"})
"""What verl's reward managers hand to every reward function when a reward model is on; of no use here."""


def soft_reward(predicted: Set[str] | None, truth: Set[str]) -> float:
    """Share of the true letters that were found, or 0 if any predicted letter is wrong (Eq. 7).

    No answer (None or empty) scores 0, and so does everything against an empty truth, where Eq. 7 is 0/0.
    """
    return len(predicted) / len(truth) if predicted and predicted <= truth else 0.0


def exact_reward(predicted: Set[str] | None, truth: Set[str]) -> float:
    """1 if exactly the true letters were predicted, else 0. No answer and an empty truth score 0."""
    return float(bool(predicted) and predicted == truth)


def format_reward(text: str, strict: bool = False) -> float:
    """1 if the thinking and then the answer stand in their tags, else 0.

    As released: one ``<think>`` and one ``<answer>`` at most, ``</think>`` directly before ``<answer>``, and after the
    last ``</answer>`` only white space and exclamation marks; anything may stand before ``<think>``.
    Strict: one of each of the four tags, nothing outside them, and a thinking that is not blank.
    """
    if text.count("<think>") != 1 or text.count(OPEN_TAG) != 1:
        return 0.0
    before_answer, _, after_open = text.partition(OPEN_TAG)
    preamble, opened, thinking = before_answer.partition("<think>")
    _, closed, tail = after_open.rpartition(CLOSE_TAG)
    thinking = thinking.rstrip()
    if not (opened and closed and thinking.endswith("</think>")):
        return 0.0
    if not strict:
        return float(not tail.replace("!", "").strip())
    one_of_each = text.count("</think>") == 1 and text.count(CLOSE_TAG) == 1
    thought = thinking.removesuffix("</think>").strip()
    return float(one_of_each and bool(thought) and not preamble.strip() and not tail.strip())


@dataclass(frozen=True)
class RewardSettings:
    """What a run may choose about its reward; the defaults are the released recipe.

    mode: accuracy part of the score: ``soft`` (Eq. 7) or ``exact``.
    lenient: False (strict grammar), True (all leniencies), or a list of their names (``answers.LENIENCIES``).
    format_weight: weight of the format reward in the score, at least 0.
    strict_format: demand the strict variant of the format.

    Raises ``ValueError`` naming the setting.
    """

    mode: str = "soft"
    lenient: bool | Iterable[str] = False
    format_weight: float = 1.0
    strict_format: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode: {self.mode!r} is not one of {', '.join(MODES)}")
        leniency_names(self.lenient)
        weight = self.format_weight
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ValueError(f"format_weight: {weight!r} is not a number of at least 0")
        if not isinstance(self.strict_format, bool):
            raise ValueError(f"strict_format: {self.strict_format!r} is neither true nor false")

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> RewardSettings:
        """Settings by name. Raises ``ValueError`` for an unknown name or a bad value."""
        known = [field.name for field in fields(cls)]
        unknown = ", ".join(sorted(set(settings) - set(known)))
        if unknown:
            raise ValueError(f"{unknown}: no such reward setting; there are {', '.join(known)}")
        return cls(**settings)


def score_response(text: str, truth: Set[str], letters: str, settings: RewardSettings) -> dict[str, float | None]:
    """Score and everything worth logging about one response; ``letters`` are those of the item's options.

    All values are numbers, except that the keys which split accuracy by the size of the truth are None where they do
    not apply: verl's ``process_validation_metrics`` leaves None out of its means, and would average a 0 into them.
    ``acc`` repeats the exact accuracy under the name that verl takes for its core metric, and counts as 0 where a
    rollout failed.
    """
    predicted = parse_answer(text, settings.lenient)
    exact, soft = exact_reward(predicted, truth), soft_reward(predicted, truth)
    form = format_reward(text, settings.strict_format)
    multiple = len(truth) > 1
    return {
        "score": (soft if settings.mode == "soft" else exact) + settings.format_weight * form,
        "acc": exact,
        "accuracy": exact,
        "accuracy_single": None if multiple else exact,
        "accuracy_multiple": exact if multiple else None,
        "soft_accuracy": soft,
        "soft_accuracy_multiple": soft if multiple else None,
        "format": form,
        "parsed": float(predicted is not None),
        "n_predicted": len(predicted or ()),
        "n_truth": len(truth),
        "out_of_range": len((predicted or frozenset()).difference(letters)),
    }


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> dict[str, float | str | None]:
    """verl's custom reward function: ``score_row`` of one rollout. ``kwargs`` are the ``RewardSettings``.

    ``extra_info["options"]`` gives the letters that are allowed (without it, all 26), and ``extra_info["id"]`` names
    the row in errors.
    Raises ``ValueError`` for a bad ground truth (with the row's id) or a bad setting.
    """
    settings = RewardSettings.read({key: kwargs[key] for key in kwargs.keys() - REWARD_MODEL_KWARGS})
    return score_row(data_source, solution_str, ground_truth, extra_info, settings)


def score_row(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None,
    settings: RewardSettings,
) -> dict[str, float | str | None]:
    """``score_response`` for a row as verl's dataset holds it, with the row's ``id`` and ``benchmark`` as text.

    verl's dumps hold what the reward reports but neither the row's id nor its data source; its metrics leave text and
    None out. The data source goes by another name, as verl's older trainer refuses two columns of one name that differ
    in dtype (``DataProto.union``). ``id`` is None where the row has none.
    Raises ``ValueError`` for a bad truth or bad options.
    """
    truth, letters = read_row(data_source, ground_truth, extra_info)
    row_id = (extra_info or {}).get("id")
    return {
        **score_response(solution_str, truth, letters, settings),
        "id": None if row_id is None else str(row_id),
        "benchmark": data_source,
    }


def read_row(data_source: str, ground_truth: str, extra_info: Mapping[str, Any] | None) -> tuple[frozenset[str], str]:
    """The true letters of a row and the letters of its options. Raises ``ValueError`` with the row's id."""
    info = extra_info or {}
    where = f"{data_source}: item {info.get('id', '(no id)')}"
    if info.get("task") not in (None, "", "multiple_choice"):
        raise ValueError(
            f"{where}: task {info['task']} is no multiple choice; set reward.reward_manager.name=video_tasks"
        )
    letters = letters_of(info, where)
    return read_truth(ground_truth, letters, where), letters


def letters_of(info: Mapping[str, Any], where: str) -> str:
    """The letters that a row's options have; all 26 where it has no options."""
    options = info.get("options")
    return LETTERS if options is None else option_letters(options, where)


def check_gold(data_source: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None) -> None:
    """Raise ``ValueError`` with the row's id unless the row's own truth, given as an answer, scores in full."""
    truth, letters = read_row(data_source, ground_truth, extra_info)
    settings = RewardSettings(strict_format=True)
    gold = f"<think>gold</think><answer>{','.join(sorted(truth))}</answer>"
    result = score_response(gold, truth, letters, settings)
    if (result["accuracy"], result["score"]) != (1.0, 1.0 + settings.format_weight):
        row = (extra_info or {}).get("id", "(no id)")
        raise ValueError(f"{data_source}: item {row}: the gold answer {gold} scores only {result['score']}")
