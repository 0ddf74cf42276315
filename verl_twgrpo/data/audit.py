"""What an inversion did to a data set: every rate that could leak an answer, as JSON and as a readable page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from verl_twgrpo.data.inversion import Outcome
from verl_twgrpo.data.meaning import agreement_slip, nothing_among, presupposes
from verl_twgrpo.data.negation import count_negations
from verl_twgrpo.data.schema import Item


def audit(outcomes: Sequence[Outcome], examples: int = 20) -> dict[str, Any]:
    """The report of an inversion (JSON values only). ``examples`` inverted items are shown, spread over the file."""
    inverted = [outcome for outcome in outcomes if outcome.decision == "inverted"]
    others = [outcome for outcome in outcomes if outcome.decision != "inverted"]
    step = max(1, len(inverted) // max(1, examples))
    statistic, p_value = chi_square(
        [
            Counter(len(outcome.after.options) for outcome in inverted),
            Counter(len(outcome.after.options) for outcome in others),
        ]
    )
    return {
        "items": len(outcomes),
        "inverted": len(inverted),
        "kept": sum(outcome.decision == "kept" for outcome in outcomes),
        "refused": sum(outcome.decision == "refused" for outcome in outcomes),
        "refused_by_reason": _counts(outcome.reason for outcome in outcomes if outcome.decision == "refused"),
        "answer_set_size": {
            "inverted": _counts(len(outcome.after.answers) for outcome in inverted),
            "not_inverted": _counts(len(outcome.after.answers) for outcome in others),
        },
        "option_count": {
            "inverted": _counts(len(outcome.after.options) for outcome in inverted),
            "not_inverted": _counts(len(outcome.after.options) for outcome in others),
            "chi_square": statistic,
            "p_value": p_value,
        },
        "true_letter": _counts(letter for outcome in outcomes for letter in sorted(outcome.after.answers)),
        "items_with_near_duplicate_options": sum(bool(outcome.near_duplicates) for outcome in outcomes),
        "near_duplicate_options": [
            {"id": outcome.before.id, "repeated": list(outcome.near_duplicates)}
            for outcome in outcomes
            if outcome.near_duplicates
        ],
        "inverted_with_unchanged_question": sum(
            outcome.after.question.casefold() == outcome.before.question.casefold() for outcome in inverted
        ),
        "double_negations": [
            {"id": outcome.after.id, "question": outcome.after.question}
            for outcome in inverted
            if count_negations(outcome.after.question) > 1
        ],
        "why_or_how": {
            "inverted": sum(_asks_why_or_how(outcome.before.question) for outcome in inverted),
            "presuppose_what_did_not_happen": sum(presupposes(outcome.after.question) for outcome in inverted),
        },
        "nothing_among_inverted_options": sum(nothing_among(outcome.after.options) for outcome in inverted),
        "agreement_slips": sum(agreement_slip(outcome.after.question) for outcome in inverted),
        "negative_before_inversion": sum(count_negations(outcome.before.question) > 0 for outcome in outcomes),
        "examples": [
            {"id": outcome.after.id, "before": _shown(outcome.before), "after": _shown(outcome.after)}
            for outcome in inverted[::step][:examples]
        ],
    }


def to_markdown(report: dict[str, Any]) -> str:
    """The report as a page that a person reads."""
    lines = ["# Question-answer inversion: audit", ""]
    lines += _table(
        ("", "items"),
        [
            ("in", report["items"]),
            ("inverted", report["inverted"]),
            ("kept by chance", report["kept"]),
            ("refused (kept, question as it was)", report["refused"]),
            ("with near-duplicate options", report["items_with_near_duplicate_options"]),
            ("negative before inversion", report["negative_before_inversion"]),
            ("inverted with an unchanged question", report["inverted_with_unchanged_question"]),
            ("inverted with a double negation", len(report["double_negations"])),
            ("inverted why and how questions", report["why_or_how"]["inverted"]),
            ("... that presuppose what did not happen", report["why_or_how"]["presuppose_what_did_not_happen"]),
            ("inverted with an option like 'nothing'", report["nothing_among_inverted_options"]),
            ("inverted with the slip 'does ... seems' of the original", report["agreement_slips"]),
        ],
    )
    lines += ["## Refused, by reason", "", *_table(("reason", "items"), report["refused_by_reason"].items())]
    for key, title in (("option_count", "Options an item"), ("answer_set_size", "True options an item")):
        table = report[key]
        sizes = sorted(set(table["inverted"]) | set(table["not_inverted"]), key=int)
        rows = [(size, table["inverted"].get(size, 0), table["not_inverted"].get(size, 0)) for size in sizes]
        lines += [f"## {title}", "", *_table(("number", "inverted", "not inverted"), rows)]
        if key == "option_count":
            lines += [
                f"Independence of inversion: chi-square {table['chi_square']:.2f}, p = {table['p_value']:.3f} "
                "(small p: the number of options gives the inversion away).",
                "",
            ]
    lines += ["## Letters that are true", "", *_table(("letter", "items"), report["true_letter"].items())]
    if report["near_duplicate_options"]:
        near = [(row["id"], "; ".join(row["repeated"])) for row in report["near_duplicate_options"]]
        lines += ["## Near-duplicate options", "", *_table(("id", "repeated option"), near)]
    lines += ["## Examples", ""]
    for example in report["examples"]:
        lines += [f"- `{example['id']}`", f"  - {example['before']}", f"  - {example['after']}"]
    return "\n".join(lines) + "\n"


def chi_square(groups: Sequence[Counter]) -> tuple[float, float]:
    """Pearson's test that the groups' counts follow one distribution: the statistic and its p-value.

    Fewer than two values or groups have nothing to tell apart: statistic 0, p-value 1.
    """
    values = sorted(set().union(*groups))
    table_GK = [[group[value] for value in values] for group in groups if group.total()]
    if len(table_GK) < 2 or len(values) < 2:
        return 0.0, 1.0
    from scipy.stats import chi2_contingency  # takes a second to import

    found = chi2_contingency(table_GK, correction=False)
    return float(found.statistic), float(found.pvalue)


def _asks_why_or_how(question: str) -> bool:
    return bool(re.search(r"\b(why|how)\b", question.casefold()))


def _counts(values: Iterable) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _shown(item: Item) -> str:
    options = ", ".join(
        f"**{letter} {option}**" if letter in item.answers else f"{letter} {option}"
        for letter, option in zip(item.letters, item.options, strict=True)
    )
    return f"{item.question} - {options}"


def _table(header: tuple[str, ...], rows: Iterable[tuple]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [*lines, ""]
