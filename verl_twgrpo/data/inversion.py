"""Question-answer inversion (QAI, paper Section 3.3): negate a question, and its false options become the true ones.

Which items are inverted, which options are kept and in what order is drawn from a generator seeded by the item's own
id, so that neither the order of the file nor the number of workers matters. How many options an item keeps is drawn
before and independently of whether it is inverted, and inverted and other items lose options by the same rule: the
number of options tells nothing about the question.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from verl_twgrpo.data.meaning import negate_in_meaning, nothing_among
from verl_twgrpo.data.negation import CannotNegate, count_negations, negate, negate_as_published
from verl_twgrpo.data.schema import LETTERS, MULTIPLE_CHOICE, Item

INVERTED_SHARE = 0.5
NEGATIONS = {"meaning": negate_in_meaning, "paper": negate}
_ARTICLES = frozenset(("a", "an", "the"))


@dataclass(frozen=True)
class Outcome:
    """What became of one item. ``decision`` is "inverted", "kept" (by chance) or "refused" (with its reason).

    ``near_duplicates`` are the options of ``before`` that say the same as an earlier option.
    """

    before: Item
    after: Item
    decision: str
    reason: str = ""
    near_duplicates: tuple[str, ...] = ()


def invert(item: Item, seed: int = 0, negation: str = "meaning") -> Outcome:
    """Invert an item with probability one half, else keep its question; options are dropped and shuffled either way.

    Near-duplicate options are never kept together: a distractor that says the same as the true option is right or
    wrong with it. An item whose question cannot be negated keeps it, and the outcome says why.
    ``negation``: "meaning" (see ``meaning``) or "paper", which negates the verb of why and how questions too.
    Raises ``ValueError`` if the item went through an inversion before.
    """
    _refuse_second_inversion(item)
    rng = _generator(item, seed)
    wants_inversion = rng.random() < INVERTED_SHARE
    distinct, duplicates = _distinct(item)
    true = [k for k in distinct if LETTERS[k] in item.answers]
    false = [k for k in distinct if LETTERS[k] not in item.answers]

    if true and false:
        kept = _keep(true, false, rng)
    else:  # nothing to choose from: there is no proper, non-empty subset
        kept = distinct
        rng.shuffle(kept)
    decision, reason, question = "kept", "", item.question
    if wants_inversion:
        try:
            if not false:
                raise CannotNegate("no false option")
            if negation == "meaning" and nothing_among(item.options):
                raise CannotNegate("an option is 'nothing' or the like")
            question, decision = NEGATIONS[negation](item.question), "inverted"
        except CannotNegate as error:
            decision, reason = "refused", str(error)
    note = {"seed": seed, "reason": reason, "negation": negation}
    after = _rebuild(item, question, kept, inverted=decision == "inverted", note=note)
    if decision == "inverted":
        check_inverted(item, after)
    return Outcome(item, after, decision, reason, tuple(item.options[k] for k in duplicates))


def invert_as_published(item: Item, seed: int = 0) -> Outcome:
    """The released procedure, leaks included (data/question_answer_inverse/convert_nextgqa.py), with a seed.

    An inverted item keeps its true option and one to all of the others, also where the question could not be negated;
    an item that is not inverted keeps everything. Only single-answer items with two options or more can be inverted.
    """
    _refuse_second_inversion(item)
    rng = _generator(item, seed)
    wants_inversion = rng.random() < INVERTED_SHARE
    _, duplicates = _distinct(item)
    decision, reason, question, kept = "kept", "", item.question, list(range(len(item.options)))
    if wants_inversion and (len(item.answers) > 1 or len(item.options) < 2):
        decision, reason = "refused", "not a single-answer question with two options or more"
    elif wants_inversion:
        decision, question = "inverted", negate_as_published(item.question, item.source)
        true = [k for k in kept if LETTERS[k] in item.answers]
        false = [k for k in kept if LETTERS[k] not in item.answers]
        kept = true + rng.sample(false, rng.randint(1, len(false)))
        rng.shuffle(kept)
    note = {"seed": seed, "reason": reason, "paper_compatible": True}
    after = _rebuild(item, question, kept, inverted=decision == "inverted", note=note)
    return Outcome(item, after, decision, reason, tuple(item.options[k] for k in duplicates))


def invert_all(
    items: Iterable[Item], *, seed: int = 0, paper_compatible: bool = False, negation: str = "meaning"
) -> list[Outcome]:
    """One outcome per item, in the given order; ``negation`` as in ``invert``."""
    if paper_compatible:
        return [invert_as_published(item, seed) for item in items]
    return [invert(item, seed, negation) for item in items]


def check_inverted(before: Item, after: Item) -> None:
    """Raise ``ValueError`` unless ``after`` is a sound inversion of ``before``.

    Sound: the question changed and has one negation; the answers are a proper subset of the options, and the complement
    of the truth among the options kept.
    """
    where = f"{after.source}: item {after.id}"
    truth = {before.options[LETTERS.index(letter)] for letter in before.answers}
    answers = {after.options[LETTERS.index(letter)] for letter in after.answers}
    if after.question == before.question:
        raise ValueError(f"{where}: inverted, but the question is unchanged")
    if count_negations(after.question) != 1:
        raise ValueError(f"{where}: {count_negations(after.question)} negations in {after.question!r}, need one")
    if not after.answers < set(after.letters):
        raise ValueError(f"{where}: every option is true after inversion")
    if not set(after.options) <= set(before.options) or answers != set(after.options) - truth:
        raise ValueError(f"{where}: the answers are not the complement of the truth among the options kept")


def near_duplicates(options: Sequence[str]) -> list[int]:
    """Indices of the options that say the same as an earlier one, up to case, punctuation, articles and inflection."""
    seen: set[tuple[str, ...]] = set()
    found = []
    for index, option in enumerate(options):
        key = _normal_form(option)
        if key in seen:
            found.append(index)
        seen.add(key)
    return found


def contradictory_options(options: Sequence[str], answers: Iterable[str]) -> str:
    """The first two options in the same words of which one is true and the other is not; "" if there are none."""
    first: dict[tuple[str, ...], int] = {}
    for k, option in enumerate(options):
        words = tuple(re.findall(r"\w+", option.casefold())) or (option.strip(),)
        j = first.setdefault(words, k)
        if (LETTERS[j] in answers) != (LETTERS[k] in answers):
            return f"options {LETTERS[j]} and {LETTERS[k]} are both {options[k]!r}, and one of them is true"
    return ""


def _normal_form(option: str) -> tuple[str, ...]:
    words = re.findall(r"[^\W_]+", option.casefold())
    # "5.0" and "50" must stay apart, and so must options without a word in them
    if any(word.isdigit() for word in words) or not words:
        return (option.strip().casefold(),)
    return tuple(_stem(word) for word in words if word not in _ARTICLES or len(words) == 1)


def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    return word.rstrip("e")


def _generator(item: Item, seed: int) -> random.Random:
    key = "\0".join((str(seed), item.source, item.split, item.id))
    return random.Random(int.from_bytes(hashlib.sha256(key.encode()).digest(), "big"))


def _distinct(item: Item) -> tuple[list[int], list[int]]:
    """Indices of the options that differ from each other, the true ones first choice, and of those left out."""
    by_truth = sorted(range(len(item.options)), key=lambda k: LETTERS[k] not in item.answers)
    repeated = {by_truth[k] for k in near_duplicates([item.options[k] for k in by_truth])}
    return [k for k in range(len(item.options)) if k not in repeated], sorted(repeated)


def _keep(true: list[int], false: list[int], rng: random.Random) -> list[int]:
    """Two to all of the options in random order, at least one of either kind."""
    size = rng.randint(2, len(true) + len(false))
    kept = [rng.choice(true), rng.choice(false)]
    kept += rng.sample([k for k in true + false if k not in kept], size - 2)
    rng.shuffle(kept)
    return kept


def _rebuild(item: Item, question: str, kept: list[int], *, inverted: bool, note: dict) -> Item:
    answers = {letter for letter, k in zip(LETTERS, kept, strict=False) if (LETTERS[k] in item.answers) != inverted}
    qai = {
        **note,
        "inverted": inverted,
        "question": item.question,
        "options": list(item.options),
        "answers": item.ground_truth,
        "kept": [LETTERS[k] for k in kept],
    }
    return dataclasses.replace(
        item,
        question=question,
        options=tuple(item.options[k] for k in kept),
        answers=frozenset(answers),
        negated=inverted,
        provenance={**item.provenance, "qai": qai},
    )


def _refuse_second_inversion(item: Item) -> None:
    if item.task != MULTIPLE_CHOICE:
        raise ValueError(
            f"{item.source}: item {item.id}: its task is {item.task}; only multiple choice can be inverted"
        )
    if "qai" in item.provenance:
        raise ValueError(f"{item.source}: item {item.id}: went through an inversion already; start from the original")
