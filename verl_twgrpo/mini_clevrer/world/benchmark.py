"""The questions of the study: four options about five objects, in equal parts by what makes them hard.

Two of three are counterfactual. Half of those have another answer than the video shows, so that copying what was seen
is no way. The third asks for the first half of the video; something else on its list happens in the second half, so
that its answer changes where frames are reversed or shuffled, and copying what was seen is always wrong. Half of each
kind have one true option, half two or three.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from verl_twgrpo.data.schema import Item
from verl_twgrpo.mini_clevrer.world.physics import DURATION, Pair, World, WorldSpec, draw_world, simulate
from verl_twgrpo.mini_clevrer.world.questions import Question
from verl_twgrpo.mini_clevrer.world.render import FRAMES
from verl_twgrpo.mini_clevrer.world.source import Draw, item_rng

SPEC = WorldSpec(objects=5, radius=0.1, speed=(0.4, 0.9), start_gap=0.23, aim=0.15, clearance=0.05)
OPTIONS = 4
HALF = DURATION / 2
# no contact nearer to the half than half a frame: it is there in the frame before, or it is not
MARGIN = DURATION / (FRAMES - 1) / 2


@dataclass(frozen=True)
class Target:
    """What question k of a split is: its kind, several true options or one, another answer than was observed or not."""

    first_half: bool
    several: bool
    differs: bool

    @staticmethod
    def of(index: int) -> Target:
        """The six kinds of question take turns, so that any twelve in a row are balanced."""
        first_half = index % 3 == 2
        turn = index // 3
        return Target(first_half, turn % 2 == 1, first_half or turn // 2 % 2 == 1)


def draw(split: str, index: int, seed: int) -> Draw:
    """Question ``index`` of a split, and its world: it depends on nothing but the arguments.

    ``dropped`` are the worlds before that have no such question. Raises ``ValueError`` for an unknown split.
    """
    rng, target, dropped = item_rng(split, index, seed), Target.of(index), 0
    while True:
        world = draw_world(rng, SPEC)
        if world is None:
            continue
        question = next(_questions(rng, world, target), None)
        if question is not None:
            return Draw(world, question, dropped)
        dropped += 1


def digest(items: Iterable[Item]) -> str:
    """sha256 of what is asked, in order: ids, questions, options, answers and the videos' digests."""
    found = hashlib.sha256()
    for item in items:
        said = [item.id, item.question, list(item.options), sorted(item.answers), item.video_digest]
        found.update(json.dumps(said).encode())
    return found.hexdigest()


def _questions(rng: np.random.Generator, world: World, target: Target) -> Iterator[Question]:
    """The world's questions of that kind, in random order."""
    observed = simulate(world).contacts
    everything = range(len(world.bodies))
    if target.first_half:
        if all(abs(time - HALF) >= MARGIN for time in observed.values()):
            early = {pair for pair, time in observed.items() if time < HALF}
            yield from _choices(rng, list(combinations(everything, 2)), early, set(observed), target, None)
        return
    for about in map(int, rng.permutation(everything)):
        pairs = list(combinations([i for i in everything if i != about], 2))
        yield from _choices(rng, pairs, set(simulate(world, about).contacts), set(observed), target, about)


def _choices(
    rng: np.random.Generator, pairs: list[Pair], true: set[Pair], observed: set[Pair], target: Target, about: int | None
) -> Iterator[Question]:
    """Every choice of ``OPTIONS`` of the pairs that meets the target, in random order."""
    choices = list(combinations(pairs, OPTIONS))
    for k in rng.permutation(len(choices)):
        chosen = [choices[k][place] for place in rng.permutation(OPTIONS)]
        truth, seen = (tuple(pair in among for pair in chosen) for among in (true, observed))
        if (sum(truth) > 1) != target.several or not 1 <= sum(truth) < OPTIONS or (truth != seen) != target.differs:
            continue
        # which of the two is named first says nothing either
        shown = tuple((j, i) if rng.random() < 0.5 else (i, j) for i, j in chosen)
        until = HALF if target.first_half else DURATION
        yield Question(about is not None, about, shown, truth, seen, until)
