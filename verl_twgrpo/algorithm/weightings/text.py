"""The text of a response, and which part of it each token wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

UNFINISHED = "\ufffd"


@dataclass(frozen=True)
class ResponseText:
    """text: of the whole response. spans: by token, where its characters begin and end in it."""

    text: str
    spans: list[tuple[int, int]]

    def tokens_of_words(self, words: Iterable[str]) -> torch.Tensor:
        """Whether a token has a character of one of the words or phrases, [L] bool.

        A word is found whole only ("A" not in "And"), in the case in which it is given.
        """
        found = [match.span() for word in words for match in re.finditer(_whole(word), self.text)]
        return torch.tensor(
            [any(begin < stop and start < end for start, stop in found) for begin, end in self.spans], dtype=torch.bool
        )


def response_text(token_ids: Sequence[int], decode: Callable[[list[int]], str]) -> ResponseText:
    """Text and spans of a response.

    Tokens are decoded behind the one before them, for tokenizers that put spaces between words. Of a character that
    takes several tokens each of them has the whole.

    Args:
        decode: of a tokenizer, from token ids to text.
    """
    text, spans = "", []
    context = done = 0  # tokens from `context` on are decoded together, the text of those before `done` is known
    ids = list(token_ids)
    for end in range(1, len(ids) + 1):
        known, whole = decode(ids[context:done]) if done > context else "", decode(ids[context:end])
        if whole.endswith(UNFINISHED) and end < len(ids):
            continue
        begin, text = len(text), text + whole[len(known) :]
        spans += [(begin, len(text))] * (end - done)
        context, done = done, end
    return ResponseText(text, spans)


def _whole(word: str) -> str:
    before = r"(?<!\w)" if re.match(r"\w", word) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", word) else ""
    return before + re.escape(word) + after
