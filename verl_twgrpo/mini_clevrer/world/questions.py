"""Multi-answer questions about a world; the truth comes from running the world again.

Counterfactual questions are CLEVRER's "Without the red circle, what will happen?". Descriptive ones ask for what the
video shows, in a sentence of the same length; they are for the warm start only. Those about the first half of the video
have other answers where its frames are reversed or shuffled.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from verl_twgrpo.mini_clevrer.world.physics import DURATION, Pair, World, simulate

COUNTERFACTUAL = "Without the {}, what will happen?"
DESCRIPTIVE = "In the video with the {}, what happens?"
FIRST_HALF = "In the first half of the video, what happens?"
OPTION = "The {} collides with the {}"


@dataclass(frozen=True)
class Question:
    """A question about a world: which of ``options`` (pairs without object ``about``) touch.

    ``truth`` has a flag per option. ``observed`` says the same for the video as it was, so a counterfactual question
    with ``truth != observed`` is one that copying what was seen gets wrong. ``until``: what touches later is not true;
    ``about`` is None where no object is asked about.
    """

    counterfactual: bool
    about: int | None
    options: tuple[Pair, ...]
    truth: tuple[bool, ...]
    observed: tuple[bool, ...]
    until: float = DURATION

    @property
    def kind(self) -> str:
        """ "counterfactual", "descriptive" or "first half"."""
        if self.until < DURATION:
            return "first half"
        return "counterfactual" if self.counterfactual else "descriptive"


def draw_question(rng: np.random.Generator, world: World, options: int, *, counterfactual: bool = True) -> Question:
    """Ask about a random object, with ``options`` random pairs of the others in random order.

    Raises ``ValueError`` if the world has fewer pairs than that.
    """
    about = int(rng.integers(len(world.bodies)))
    pairs = list(combinations([i for i in range(len(world.bodies)) if i != about], 2))
    if not 1 <= options <= len(pairs):
        raise ValueError(f"mini_clevrer: {options} options, need 1 to {len(pairs)} with {len(world.bodies)} objects")
    chosen = [pairs[k] for k in rng.permutation(len(pairs))[:options]]
    observed = tuple(pair in simulate(world).contacts for pair in chosen)
    truth = tuple(pair in simulate(world, about).contacts for pair in chosen) if counterfactual else observed
    # which of the two is named first says nothing either
    shown = tuple((j, i) if rng.random() < 0.5 else (i, j) for i, j in chosen)
    return Question(counterfactual, about, shown, truth, observed)


def question_text(world: World, question: Question) -> str:
    """The question in words."""
    if question.about is None:
        return FIRST_HALF
    return (COUNTERFACTUAL if question.counterfactual else DESCRIPTIVE).format(world.bodies[question.about].name)


def option_texts(world: World, question: Question) -> tuple[str, ...]:
    """The options in words, without letters."""
    return tuple(OPTION.format(world.bodies[i].name, world.bodies[j].name) for i, j in question.options)
