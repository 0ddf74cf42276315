"""What a thinking model could write about a question: objects first, then a verdict on each option, then the answer.

For the warm start, which must teach the format without teaching one length: how many objects are described, the order
of the verdicts and their wording are drawn at random. Objects are described from left to right: the order ties the
first colours to places in the picture, and a tiny model that gets them in random order stays blind for longer. A
verdict says where both objects end before it says whether they meet: from their colours alone it stays a guess.
"""

from __future__ import annotations

import math

import numpy as np

from verl_twgrpo.data.schema import LETTERS
from verl_twgrpo.mini_clevrer.world.physics import DURATION, World, simulate
from verl_twgrpo.mini_clevrer.world.questions import Question

# The board that places are told on: columns a to f from the left, rows 1 to 6 from the top.
COLUMNS, ROWS = "abcdef", "123456"
DIRECTIONS = ("east", "south-east", "south", "south-west", "west", "north-west", "north", "north-east")

_START, _HEADING, _END, _FULL_STOP = " at ", " going ", " to ", ". "
_OPTION, _AND = "{}: ", " and "
_LONG = {True: " meet. ", False: " miss. "}
_SHORT = {True: "yes. ", False: "no. "}

# The words on which a response's answer hangs.
VERDICTS = tuple(verdict.strip(" .") for verdict in (*_LONG.values(), *_SHORT.values()))

# What a tokenizer should have as one token each; rows are single characters anyway.
PHRASES = (
    *(before + column for before in (_START, _END) for column in COLUMNS),
    *(_HEADING + direction for direction in DIRECTIONS),
    *(_OPTION.format(letter) for letter in LETTERS[:6]),
    _FULL_STOP, _AND, *_LONG.values(), *_SHORT.values(),
)  # fmt: skip


def response(rng: np.random.Generator, world: World, question: Question, *, objects: int, terse: float) -> str:
    """A right answer with its thinking: ``objects`` of the objects described, each verdict brief with chance ``terse``.

    The text is ``<think>...</think><answer>A,C</answer>``.
    """
    chosen = rng.permutation(len(world.bodies))[:objects]
    described = [_describe(world, i) for i in sorted(chosen, key=lambda i: world.bodies[i].x)]
    # where everything is at the end of what is asked about: two objects that met lie side by side
    ends = simulate(world, question.about if question.counterfactual else None).positions(question.until)
    verdicts = []
    for k in rng.permutation(len(question.options)):
        true = question.truth[k]
        if rng.random() < terse:
            verdict = _SHORT[true]
        else:
            pair = _AND.join(world.bodies[i].colour + _END + _cell(*ends[i]) for i in question.options[k])
            verdict = pair + _LONG[true]
        verdicts.append(_OPTION.format(LETTERS[k]) + verdict)
    answer = ",".join(letter for letter, true in zip(LETTERS, question.truth, strict=False) if true)
    return said("".join(described + verdicts), answer)


def said(thinking: str, answer: str, tagged: bool = True) -> str:
    """A response in the form that is rewarded, or with the answer's tags missing."""
    return f"<think>{thinking}</think>" + (f"<answer>{answer}</answer>" if tagged else answer)


def _describe(world: World, index: int) -> str:
    """Where an object starts, which way it flies and where it is at the end of the video."""
    body = world.bodies[index]
    heading = DIRECTIONS[round(math.atan2(body.vy, body.vx) / (math.pi / 4)) % len(DIRECTIONS)]
    end = simulate(world).positions(DURATION)[index]
    return body.colour + _START + _cell(body.x, body.y) + _HEADING + heading + _END + _cell(*end) + _FULL_STOP


def _cell(x: float, y: float) -> str:
    return COLUMNS[int(x * len(COLUMNS))] + ROWS[int(y * len(ROWS))]
