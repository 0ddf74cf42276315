"""The paper's metrics, strict and soft accuracy (Eq. 7), by benchmark and size of the truth; and two models paired."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from verl_twgrpo.rewards import exact_reward, parse_answer, soft_reward

from .intervals import PairedTest, bootstrap_mean, paired_difference, wilson
from .predictions import MULTIPLE_CHOICE, Prediction

QUESTIONS = ("single", "multiple", "all")
"""Questions with one true option, with several, and both, as in the columns of Table 3."""

PARSER_RULES = ("bare",)
"""What the parser reads beside its strict grammar unless told otherwise, from any model: zero-shot prompts ask for the
letters alone. Where the released scripts compared such outputs as they stood, a tagged one counted as wrong."""


@dataclass(frozen=True)
class Score:
    """Accuracies of n questions as fractions, each with its 95% interval; unparsable: answers that no rule reads."""

    n: int
    strict: float
    strict_low: float
    strict_high: float
    soft: float
    soft_low: float
    soft_high: float
    unparsable: int


@dataclass(frozen=True)
class Comparison:
    """Two models on their n common problems: strict accuracies paired, and the soft difference with its interval."""

    n: int
    strict: PairedTest
    soft_difference: float
    soft_low: float
    soft_high: float


def evaluate(
    predictions: Iterable[Prediction], lenient: bool | Iterable[str] = PARSER_RULES, seed: int = 0
) -> dict[str, dict[str, Score]]:
    """Score by benchmark and by ``QUESTIONS``; kinds of question that a benchmark has none of are left out.

    ``lenient`` as in ``rewards.parse_answer``; ``seed`` is that of the bootstrap.
    """
    return {
        benchmark: {kind: _score(rows, lenient, seed) for kind, rows in by_truth_size(part).items()}
        for benchmark, part in _by_benchmark(predictions).items()
    }


def by_truth_size(rows: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """The rows by ``QUESTIONS``, without the empty kinds."""
    single = [row for row in rows if len(row.truth) == 1]
    multiple = [row for row in rows if len(row.truth) > 1]
    return {kind: part for kind, part in zip(QUESTIONS, (single, multiple, list(rows)), strict=True) if part}


def stored_deviations(
    predictions: Iterable[Prediction], lenient: bool | Iterable[str] = PARSER_RULES
) -> list[tuple[Prediction, float]]:
    """Rows whose file holds another exact accuracy than the one computed here, with the latter."""
    deviations = []
    for row in _multiple_choice(predictions):
        exact = exact_reward(parse_answer(row.text, lenient), row.truth)
        if row.stored is not None and row.stored != exact:
            deviations.append((row, exact))
    return deviations


def compare(
    predictions: Iterable[Prediction],
    baseline: Iterable[Prediction],
    lenient: bool | Iterable[str] = PARSER_RULES,
    seed: int = 0,
) -> dict[str, dict[str, Comparison]]:
    """Model minus baseline on the problems that both answered, by benchmark and by ``QUESTIONS``.

    Raises ``ValueError`` if no problem is in both, or if a problem has two truths.
    """
    theirs: dict[tuple[str, str | None], Prediction] = {
        (row.benchmark, row.id): row for row in _multiple_choice(baseline) if row.id is not None
    }
    ours = [row for row in _multiple_choice(predictions) if (row.benchmark, row.id) in theirs]
    if not ours:
        raise ValueError(
            "baseline: no problem in common, by benchmark and problem id; the benchmark is the row's data source, or"
            " for released files what their names say (mmvu, clevrer, ...)"
        )
    for row in ours:
        other = theirs[row.benchmark, row.id]
        if other.truth != row.truth:
            letters = [",".join(sorted(truth)) for truth in (row.truth, other.truth)]
            raise ValueError(f"{row.where}: the truth is {letters[0]}, but {letters[1]} at {other.where}")
    return {
        benchmark: {
            kind: _compare(rows, [theirs[benchmark, row.id] for row in rows], lenient, seed)
            for kind, rows in by_truth_size(part).items()
        }
        for benchmark, part in _by_benchmark(ours).items()
    }


def _compare(
    ours: Sequence[Prediction], theirs: Sequence[Prediction], lenient: bool | Iterable[str], seed: int
) -> Comparison:
    parsed = [[parse_answer(row.text, lenient) for row in rows] for rows in (ours, theirs)]
    exact, soft = (
        [[reward(answer, row.truth) for answer, row in zip(answers, ours, strict=True)] for answers in parsed]
        for reward in (exact_reward, soft_reward)
    )
    differences = [a - b for a, b in zip(*soft, strict=True)]
    low, high = bootstrap_mean(differences, seed)
    return Comparison(len(ours), paired_difference(*exact), sum(differences) / len(differences), low, high)


def _score(rows: Sequence[Prediction], lenient: bool | Iterable[str], seed: int) -> Score:
    answers = [parse_answer(row.text, lenient) for row in rows]
    right = sum(exact_reward(answer, row.truth) for answer, row in zip(answers, rows, strict=True))
    soft = [soft_reward(answer, row.truth) for answer, row in zip(answers, rows, strict=True)]
    n = len(rows)
    return Score(
        n,
        right / n,
        *wilson(int(right), n),
        sum(soft) / n,
        *bootstrap_mean(soft, seed),
        sum(answer is None for answer in answers),
    )


def _by_benchmark(predictions: Iterable[Prediction]) -> dict[str, list[Prediction]]:
    found: dict[str, list[Prediction]] = {}
    for row in _multiple_choice(predictions):
        found.setdefault(row.benchmark, []).append(row)
    return found


def _multiple_choice(predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    """Rows with letters; ``tasks.evaluate_tasks`` has the others."""
    return (row for row in predictions if row.task == MULTIPLE_CHOICE)
