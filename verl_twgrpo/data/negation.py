"""Negation of English wh-questions by rule: "what did the boy eat" -> "what didn't the boy eat".

A question is negated at the finite auxiliary of its main clause, with do-support where there is none. Where the rules
do not hold, ``CannotNegate`` says why; nothing is returned unchanged. ``negate_as_published`` is the released
procedure, which does return questions unchanged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from verl_twgrpo.data.verbs import BASE, PARTICIPLE, PAST, PRESENT


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_CONTRACTED = {
    **{aux: aux + "n't" for aux in _set("is are was were do does did has have had could would should must")},
    "can": "can't",
    "will": "won't",
    "shall": "shan't",
}
_UNCONTRACTED = frozenset({"may", "might"})
_BASE_AFTER_MODAL = BASE | {"be", "have"}
_HAVE = frozenset({"has", "have", "had"})
_WH = frozenset({"what", "which", "who", "whom", "whose", "why", "where", "when", "how"})
_NOUN_WH = frozenset({"what", "which", "whose"})
# words that open another clause: the main clause's auxiliary stands before them
_CLAUSE = _set(
    "when while after before as because since until till if although though once whenever that who whom whose which "
    "where what how why so whether"
)
_PREPOSITIONS = _set(
    "in on at to from with of for by under over near into onto around behind beside above below between inside "
    "outside towards toward during through"
)
_DETERMINERS = _set("the a an this that these those his her its their my your our he she it they we you i")
_PLURAL_NOUNS = _set("people men women children animals")
_ADVERBS = _set("else exactly then also first finally suddenly usually often always next again best most")
_NEGATIVE = _set(
    "not never no none nothing nobody nowhere neither nor cannot unable hardly barely scarcely except incorrect false "
    "nt didnt doesnt dont isnt arent wasnt werent cant wont couldnt wouldnt"
)
# "didn't" in files that lost their apostrophes ("didn t")
_SPLIT_NEGATION = re.compile(
    r"\b(?:did|does|do|is|are|was|were|has|have|had|could|would|should|ca|wo)n t\b", re.IGNORECASE
)
_CLITIC = {"'s": "is", "'re": "are", "'ve": "have", "'ll": "will"}
_SENTENCE_END = re.compile(r"""(?<=[.!?]["'”’])\s+(?=\S)|(?<=[.!?])\s+(?=\S)""")
_WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)?")


class CannotNegate(ValueError):
    """The rules do not hold for this question; the message is the reason."""


@dataclass(frozen=True)
class _Word:
    text: str  # lower case, straight apostrophe
    start: int
    end: int


def _words(question: str) -> list[_Word]:
    return [_Word(m.group().lower().replace("’", "'"), m.start(), m.end()) for m in _WORD.finditer(question)]


def count_negations(text: str) -> int:
    """How many negative words the text has ("not", "n't", "never", "no", "unable", ...)."""
    whole = sum(word.text in _NEGATIVE or word.text.endswith("n't") for word in _words(text))
    return whole + len(_SPLIT_NEGATION.findall(text))


def negate(question: str) -> str:
    """The question with its main clause negated; everything else, case and punctuation included, is kept.

    Raises ``CannotNegate`` if the question is negative already, is a yes/no or degree question, or its finite verb
    cannot be told.
    """
    if count_negations(question):
        raise CannotNegate("negative already")
    question = _expand_clitic(question)
    sentences = _SENTENCE_END.split(question)
    if sum(sentence.endswith("?") for sentence in sentences) > 1:
        raise CannotNegate("more than one question")
    lead = question[: len(question) - len(sentences[-1])]
    return lead + _negate_sentence(sentences[-1])


def _negate_sentence(question: str) -> str:
    words = _words(question)
    wh = _main_wh(words)
    _refuse_kinds(words, wh)

    at = _auxiliary(words, wh)
    subject_verb = wh + 1
    while subject_verb < len(words) and words[subject_verb].text in _ADVERBS:
        subject_verb += 1
    happens = subject_verb < len(words) and words[subject_verb].text in {"happened", "happens", "occurred", "occurs"}
    if at is None or happens:
        return _with_do(question, words, wh, subject_verb)
    aux = words[at]
    if aux.text in _HAVE and not any(word.text in PARTICIPLE for word in _clause(words, at + 1)):
        if words[wh].text not in {"who", "which"}:
            raise CannotNegate("'have' as a main verb")
        do = {"had": "did", "has": "does", "have": "do"}[aux.text]
        return _insert_do(question, words, at, do, "have")
    if aux.text in _UNCONTRACTED:
        following = words[at + 1].text if at + 1 < len(words) else ""
        if following not in _BASE_AFTER_MODAL:
            raise CannotNegate(f"'{aux.text}' has no contraction, and its verb does not follow")
        return question[: aux.end] + " not" + question[aux.end :]
    return question[: aux.start] + _like(question[aux.start : aux.end], _CONTRACTED[aux.text]) + question[aux.end :]


def _like(model: str, text: str) -> str:
    """``text`` in capitals where ``model`` is."""
    if len(model) > 1 and model.isupper():
        return text.upper()
    return text[0].upper() + text[1:] if model[0].isupper() else text


def _expand_clitic(question: str) -> str:
    """ "what's the man doing" -> "what is the man doing"; refuses where the clitic stands for several words."""
    words = _words(question)
    for word, following in zip(words, [*words[1:], None], strict=False):
        stem, apostrophe, clitic = word.text.partition("'")
        if stem not in _WH or not apostrophe:
            continue
        if clitic == "d" or (clitic == "s" and following and following.text in PARTICIPLE | {"been", "got"}):
            raise CannotNegate(f"'{word.text}' stands for more than one auxiliary")
        if "'" + clitic in _CLITIC:
            cut = word.start + len(stem)
            return question[:cut] + " " + _CLITIC["'" + clitic] + question[word.end :]
    return question


def _main_wh(words: list[_Word]) -> int:
    """Index of the main clause's question word."""
    if not words:
        raise CannotNegate("empty question")
    for k, word in enumerate(words):
        if word.text not in _WH:
            continue
        following = words[k + 1].text if k + 1 < len(words) else ""
        is_aux = following in _CONTRACTED or following in _UNCONTRACTED
        if word.text in {"when", "where", "who", "whom", "whose"} and not is_aux and k > 0:
            continue  # a relative or temporal clause
        if word.text == "when" and not is_aux:
            continue  # "When the man fell, what did he do"
        return k
    first = words[0].text
    if first in _CONTRACTED or first in _UNCONTRACTED:
        raise CannotNegate("yes/no question: its answers do not change places under negation")
    raise CannotNegate("no question word")


def _refuse_kinds(words: list[_Word], wh: int) -> None:
    texts = [word.text for word in words]
    following = texts[wh + 1] if wh + 1 < len(texts) else ""
    known = following in _CONTRACTED or following in _UNCONTRACTED or following == "am"
    if texts[wh] == "how" and following in {"many", "much", "long", "often", "old", "far", "fast", "tall", "big"}:
        raise CannotNegate("asks for a number or a degree")
    if texts[wh] in {"why", "how", "where", "when", "whom"} and not (
        known or following in _ADVERBS or (following in _PREPOSITIONS and texts[wh] == "where")
    ):
        raise CannotNegate(f"no auxiliary after '{texts[wh]}'")
    if re.search(r"\b(do|does|did) (you|we|they|people) (think|suppose|believe|know)\b", " ".join(texts)):
        raise CannotNegate("asks for an opinion: negation would fall on 'think'")


def _clause(words: list[_Word], start: int) -> list[_Word]:
    """The words from ``start`` to the end of the main clause."""
    for k in range(start, len(words)):
        if words[k].text in _CLAUSE:
            return words[start:k]
    return words[start:]


def _auxiliary(words: list[_Word], wh: int) -> int | None:
    """Index of the main clause's finite auxiliary."""
    clause = _clause(words, wh + 1)
    for k, word in enumerate(clause):
        if word.text == "am":
            raise CannotNegate("'am' has no contraction")
        if word.text in _CONTRACTED or word.text in _UNCONTRACTED:
            if k + 1 == len(clause):
                raise CannotNegate("nothing follows the auxiliary")
            return wh + 1 + k
        before = clause[k - 1].text if k else ""
        if word.text in _DETERMINERS and before not in _PREPOSITIONS and not before.endswith("ing"):
            break  # a new noun phrase: what stands between is a verb, or a misspelt auxiliary
    return None


def _with_do(question: str, words: list[_Word], wh: int, subject_verb: int) -> str:
    """Do-support: the question word or its noun phrase is the subject of a simple past or present verb."""
    if words[wh].text not in _NOUN_WH | {"who"}:
        raise CannotNegate(f"no auxiliary after '{words[wh].text}'")
    clause = _clause(words, subject_verb)
    finite = [word for word in clause if word.text in PAST or word.text in PRESENT]
    direct = bool(finite) and finite[0] is clause[0] and words[wh].text != "whose"
    if not direct and words[wh].text in _NOUN_WH:
        clause = clause[1:]  # the noun, which may look like a verb
        finite = [word for word in clause if word.text in PAST or word.text in PRESENT]
        if not finite:
            return _plural_present(question, clause, words)
    if not finite or (words[wh].text == "who" and not direct):
        raise CannotNegate("no auxiliary, and no verb that is known")
    if not direct and len(finite) > 1:
        raise CannotNegate("no auxiliary, and more than one verb")
    at = words.index(finite[0])
    if finite[0].text in PAST:
        return _insert_do(question, words, at, "did", PAST[finite[0].text])
    return _insert_do(question, words, at, "does", PRESENT[finite[0].text])


def _plural_present(question: str, clause: list[_Word], words: list[_Word]) -> str:
    """ "which people play" -> "which people don't play"."""
    if clause and clause[0].text in BASE:
        at = words.index(clause[0])
        noun = words[at - 1].text
        if noun in _PLURAL_NOUNS or noun.endswith("s"):
            return _insert_do(question, words, at, "do", clause[0].text)
    raise CannotNegate("no auxiliary, and no verb that is known")


def _insert_do(question: str, words: list[_Word], at: int, do: str, lemma: str) -> str:
    """Replace the verb ``words[at]`` by do + n't + lemma, with do before the adverbs that precede the verb."""
    verb = words[at]
    first = at
    while words[first - 1].text in _ADVERBS or words[first - 1].text.endswith("ly"):
        first -= 1
    start = words[first].start
    adverbs = question[start : verb.start]
    do_not = _like(question[verb.start : verb.end], _CONTRACTED[do])
    return question[:start] + f"{do_not} {adverbs}{lemma}" + question[verb.end :]


# The released rules: data/question_answer_inverse/convert_nextgqa.py and convert_star.py.
_PUBLISHED_SECOND_WORD = {aux: aux + "n't" for aux in _set("did does do is are was were")}
_PUBLISHED_STAR_PREFIX = {"what will": "what won't", "what happened": "what didn't happen"}
_PUBLISHED_STAR_SECOND_WORD = {"did": "didn't", "was": "wasn't", "able": "unable", "would": "wouldn't"}


def negate_as_published(question: str, source: str) -> str:
    """The released procedure: lower case; the second word negated if it is in the list; else unchanged.

    STAR has a list of its own, in which a question's beginning counts as well; every other source gets NExT-GQA's.
    """
    question = question.lower()
    second_word = _PUBLISHED_SECOND_WORD
    if source == "star":
        second_word = _PUBLISHED_STAR_SECOND_WORD
        for start, negated in {**second_word, **_PUBLISHED_STAR_PREFIX}.items():
            if question.startswith(start):
                return negated + question[len(start) :]
    words = question.split()
    if len(words) >= 2 and words[1] in second_word:
        words[1] = second_word[words[1]]
        return " ".join(words)
    return question
