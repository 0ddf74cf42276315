"""Negation that keeps what a why or how question takes for granted.

"why didn't the girl take the sticks" says that she did not take them, while the video shows that she did and the
options that became true are those that are not the reason. Asked here instead: "which of these is not a reason why the
girl took the sticks". Every other question is negated as in ``negation``, where the negated verb says what the answers
mean.
"""

from __future__ import annotations

from collections.abc import Iterable

from verl_twgrpo.data.negation import (
    _BASE_AFTER_MODAL,
    _CONTRACTED,
    _SENTENCE_END,
    _auxiliary,
    _clause,
    _expand_clitic,
    _like,
    _main_wh,
    _Word,
    _words,
    negate,
)
from verl_twgrpo.data.verbs import BASE, PARTICIPLE, PAST, PRESENT

_ASKS_FOR = {"why": "is not a reason why", "how": "is not how"}
_PAST_OF = {lemma: past for past, lemma in PAST.items()}
_PRESENT_OF = {lemma: present for present, lemma in PRESENT.items()}
_BE = frozenset({"is", "are", "was", "were"})
# an answer that says "not anything" turns round under a negation once more
_NOTHING = frozenset({"nothing", "none", "nobody", "nowhere", "never", "no one", "none of the above", "none of these"})


def negate_in_meaning(question: str) -> str:
    """The question whose answers are those that do not answer ``question``; raises ``CannotNegate`` as ``negate``."""
    negated = negate(question)
    question = _expand_clitic(question)
    sentence = _SENTENCE_END.split(question)[-1]
    lead = question[: len(question) - len(sentence)]
    words = _words(sentence)
    wh = _main_wh(words)
    asks_for = _ASKS_FOR.get(words[wh].text)
    if asks_for is None:
        return negated
    start = words[wh].start
    which = _like(sentence[start : words[wh].end], "which")
    statement = _statement(sentence, words, wh)
    if statement is None:
        # where the subject ends cannot be told: the question is left as it is, and asked about
        asked = sentence[start:]
        return f"{lead}{sentence[:start]}{which} of these is not an answer to this: {asked[0].lower()}{asked[1:]}"
    return f"{lead}{sentence[:start]}{which} of these {asks_for} {statement}"


def presupposes(question: str) -> bool:
    """Whether a negated question takes for granted that something did not happen: why or how with a negated verb."""
    words = _words(_SENTENCE_END.split(question)[-1])
    wh = next((k for k, word in enumerate(words) if word.text in _ASKS_FOR), None)
    return wh is not None and any(word.text.endswith("n't") or word.text == "not" for word in words[wh + 1 :][:2])


def agreement_slip(question: str) -> bool:
    """ "why does he seems": an auxiliary do before a verb that is inflected as well, as annotators wrote it."""
    words = [word.text for word in _words(question)]
    for k, word in enumerate(words):
        if word in {"do", "does", "did", "don't", "doesn't", "didn't"}:
            rest = words[k + 1 :]
            inflected = [text for text in rest if text in PRESENT or (text in PAST and text not in BASE)]
            return bool(inflected) and not any(text in BASE for text in rest)
    return False


def nothing_among(options: Iterable[str]) -> bool:
    """Whether an option is "nothing" or the like: beside a negated question it can be read both ways."""
    return any(" ".join(option.casefold().strip(" .!").split()) in _NOTHING for option in options)


def _statement(sentence: str, words: list[_Word], wh: int) -> str | None:
    """The clause after why or how as a statement; None where its verb, and so its subject's end, is not certain."""
    at = wh + 1
    if at >= len(words) or words[at].text not in _CONTRACTED or _auxiliary(words, wh) != at:
        return None
    auxiliary = words[at].text
    clause = _clause(words, at + 1)
    if auxiliary in _BE:
        verbs = [word for word in clause[1:] if word.text.endswith("ing") or word.text in PARTICIPLE]
    elif auxiliary in {"do", "does", "did"}:
        verbs = [word for word in clause[1:] if word.text in BASE]
    elif auxiliary in {"has", "have", "had"}:
        verbs = [word for word in clause[1:] if word.text in PARTICIPLE]
    else:
        verbs = [word for word in clause[1:] if word.text in _BASE_AFTER_MODAL]
    if not clause or len(verbs) != 1:
        return None
    verb = verbs[0]
    subject = sentence[words[at].end : verb.start].strip()
    rest = sentence[verb.end :]
    if auxiliary == "do":
        return f"{subject} {verb.text}{rest}"
    if auxiliary == "does":
        return f"{subject} {_PRESENT_OF[verb.text]}{rest}"
    if auxiliary == "did":
        return f"{subject} {_PAST_OF[verb.text]}{rest}" if verb.text in _PAST_OF else None
    return f"{subject} {auxiliary} {sentence[verb.start : verb.end]}{rest}"
