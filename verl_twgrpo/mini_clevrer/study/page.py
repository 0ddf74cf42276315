"""The study's tables as Markdown, for the recipe's README."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from verl_twgrpo.evaluation.intervals import RESAMPLES
from verl_twgrpo.evaluation.tables import markdown, percent, signed_percent
from verl_twgrpo.mini_clevrer.study.accuracy import DifferenceRow, SummaryRow
from verl_twgrpo.mini_clevrer.study.arms import ARMS, BLIND, LABELS, START
from verl_twgrpo.mini_clevrer.study.comparisons import MARGIN, ComparisonRow
from verl_twgrpo.mini_clevrer.study.runs import BLANK, KINDS, SEEN
from verl_twgrpo.mini_clevrer.study.scalars import (
    BASELINE,
    FOLLOWED,
    PHASES,
    STEP_WITHOUT_GEN,
    WEIGHT_PHASES,
    WEIGHTS,
    FollowsRow,
    TimingRow,
)

# (kind of question, metric): soft accuracy of one true option is the strict one
COLUMNS = (*((kind, "strict") for kind in KINDS), ("all", "soft"))
NONE = "–"


@dataclass(frozen=True)
class Model:
    """A line of the accuracy table and a dot of the figure: an arm with its frames, or a control."""

    arm: str
    frames: str
    rows: Mapping[str, SummaryRow]

    @property
    def label(self) -> str:
        """What it is called; blank frames are said, but not of a control, which looks at none."""
        blank = self.frames == BLANK and self.arm in (START, *ARMS)
        return LABELS[self.arm] + (", blank frames" if blank else "")


def models(rows: Iterable[SummaryRow]) -> list[Model]:
    """The rows by model, each with its kinds of question: ``BLIND`` with blank frames, other arms with theirs seen."""
    grouped: dict[tuple[str, str], dict[str, SummaryRow]] = {}
    for row in rows:
        if row.arm not in ARMS or row.frames == (BLANK if row.arm == BLIND else SEEN):
            grouped.setdefault((row.arm, row.frames), {})[row.questions] = row
    return [Model(*key, kinds) for key, kinds in grouped.items()]


def accuracy_table(rows: Sequence[SummaryRow]) -> str:
    """A line a model, percent with intervals."""
    counts = {row.questions: row.n for row in rows}
    kinds = [(kind, metric) for kind, metric in COLUMNS if kind in counts]
    header = ["model", "step", "seeds", *(f"{kind}, {metric} % (n = {counts[kind]})" for kind, metric in kinds)]
    lines = []
    for model in models(rows):
        one = model.rows["all"]
        cells = [percent(*_values(model.rows[kind], metric)) for kind, metric in kinds]
        lines.append([model.label, _or_none(one.step), _or_none(one.seeds), *cells])
    return markdown(header, lines)


def difference_table(rows: Sequence[DifferenceRow]) -> str:
    """A line a pair, points with intervals; bold where the interval leaves zero out."""
    kinds = [(kind, metric) for kind, metric in COLUMNS if any(row.questions == kind for row in rows)]
    header = ["first − second", "step", "seeds", *(f"{kind}, {metric}" for kind, metric in kinds)]
    pairs: dict[tuple[str, ...], dict[str, DifferenceRow]] = {}
    for row in rows:
        pairs.setdefault((row.first, row.first_frames, row.second, row.second_frames), {})[row.questions] = row
    lines = []
    for (first, first_frames, second, second_frames), by_kind in pairs.items():
        names = [Model(first, first_frames, {}).label, Model(second, second_frames, {}).label]
        one = by_kind["all"]
        cells = [_difference(*_values(by_kind[kind], metric)) for kind, metric in kinds]
        lines.append([" − ".join(names), one.step, one.seeds, *cells])
    return markdown(header, lines)


def comparison_table(rows: Sequence[ComparisonRow]) -> str:
    """A line per comparison: the difference in points with its interval, and what the tests say."""
    header = ["first − second", "step", "seeds", "strict, points", "p", "p, corrected", "p, equivalent", "verdict"]
    lines = [
        [
            f"{LABELS[row.first]} − {LABELS[row.second]}",
            row.step,
            row.seeds,
            signed_percent(row.difference, row.low, row.high),
            *(f"{value:.4f}" for value in (row.p_value, row.p_corrected, row.p_equivalent)),
            row.verdict,
        ]
        for row in rows
    ]
    return markdown(header, lines)


def timing_table(rows: Sequence[TimingRow]) -> str:
    """A line per arm: seconds per step by phase, the share of the weights, and the ratios to ``BASELINE``."""
    phases = [phase for phase in (*PHASES, STEP_WITHOUT_GEN, WEIGHTS) if phase not in WEIGHT_PHASES]
    shares = ["weights, % of step", "% of step without gen"]
    ratios = [f"step / {BASELINE}", f"step without gen / {BASELINE}"]
    header = ["arm", "runs", *(f"{phase} s" for phase in phases), *shares, *ratios]
    by_arm: dict[str, dict[str, TimingRow]] = {}
    for row in rows:
        by_arm.setdefault(row.arm, {})[row.phase] = row
    lines = []
    for arm, timed in by_arm.items():
        weights = timed.get(WEIGHTS)
        lines.append(
            [
                LABELS[arm],
                timed["step"].runs,
                *(f"{timed[phase].seconds:.3f}" if phase in timed else NONE for phase in phases),
                percent(weights.share_of_step) if weights else NONE,
                percent(weights.share_without_gen) if weights else NONE,
                *(_ratio(timed[phase]) for phase in ("step", STEP_WITHOUT_GEN)),
            ]
        )
    return markdown(header, lines)


def follows_table(rows: Sequence[FollowsRow]) -> str:
    """A line a seed: where alpha = 0 leaves token-level GRPO, and how far."""
    header = ["seed", "steps", "first step that differs", *(f"largest difference, {name}" for name in FOLLOWED)]
    header += ["equal validation answers", "at step"]
    lines = []
    for row in rows:
        distances = [row.reward, row.response_length, row.grad_norm, row.pg_loss]
        equal = NONE if row.equal_answers is None else f"{percent(row.equal_answers)} % of {row.n}"
        first = ("none" if row.steps else NONE) if row.first_difference is None else row.first_difference
        cells = [NONE if value is None else f"{value:.3g}" for value in distances]
        lines.append([row.seed, row.steps, first, *cells, equal, _or_none(row.validation_step)])
    return markdown(header, lines)


def page(
    summary: Sequence[SummaryRow],
    differences: Sequence[DifferenceRow],
    compared: Sequence[ComparisonRow],
    timing: Sequence[TimingRow],
    follows: Sequence[FollowsRow],
    command: str,
) -> str:
    """All tables with what one must know to read them; a table without lines is left out."""
    parts = [
        f"Written by `{command}`; all digits are in the CSV files beside.\n",
        "## Accuracy on held-out questions\n",
        accuracy_table(summary),
        f"95% intervals: bootstrap over seeds and questions at once ({RESAMPLES:,} resamples), over questions alone"
        " where there is one seed or none. Few seeds make them too narrow. `differs`: questions whose answer is not"
        " what the video shows happening. `blind GRPO` is trained as `GRPO, soft reward`, on blank"
        " frames. The best constant answer is chosen for each column with the truth at hand.\n",
    ]
    if differences:
        parts += [
            "## Paired differences, in points\n",
            difference_table(differences),
            "The same questions and, between arms, the same seeds; the same bootstrap. Bold: the interval leaves zero"
            " out. The many differences are not corrected for their number.\n",
        ]
    if compared:
        parts += [
            "## Do the arms differ?\n",
            comparison_table(compared),
            "Strict accuracy over all questions, the same bootstrap. Corrected: Holm, over this table's comparisons."
            f" Equivalent: two one-sided tests of a difference of {100 * MARGIN:g} points or more. Verdict at 5%:"
            " better or worse by the corrected p, else equivalent, else open.\n",
        ]
    if timing:
        parts += [
            "## Seconds per step\n",
            timing_table(timing),
            "Medians over steps, then over runs; ratios over equal seeds, with their range. A step does not count"
            " validation, nor the saving of a checkpoint. `gen` is rounded up to verl's two seconds between looks at"
            " its queue. `weights` is the head pass, the weights and their dump; the first two are part of"
            " `old_log_prob`, the dump of `adv`.\n",
        ]
    if follows:
        parts += ["## alpha = 0 against token-level GRPO, same seed\n", follows_table(follows)]
    return "\n".join(parts)


def _values(row: SummaryRow | DifferenceRow, metric: str) -> tuple[float, float, float]:
    return tuple(getattr(row, metric + part) for part in ("", "_low", "_high"))


def _difference(value: float, low: float, high: float) -> str:
    text = signed_percent(value, low, high)
    return f"**{text}**" if low > 0 or high < 0 else text


def _ratio(row: TimingRow) -> str:
    if row.ratio is None:
        return NONE
    return f"{row.ratio:.3f} [{row.ratio_low:.3f}, {row.ratio_high:.3f}]"


def _or_none(value: int | None) -> object:
    return NONE if value is None else value
