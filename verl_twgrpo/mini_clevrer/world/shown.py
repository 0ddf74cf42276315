"""The easy questions of mini-CLEVRER, for the demo: which of these objects does the video show?

A tiny model learns to see colours in a minute, and to follow collisions in ten. The questions are multi-answer all the
same: three of six colours are there, four are asked about, one to three of them are true.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from verl_twgrpo.data.schema import LETTERS, Item
from verl_twgrpo.mini_clevrer.world.physics import COLOURS, SHAPES, World, WorldSpec, draw_world
from verl_twgrpo.mini_clevrer.world.render import frames, write_mp4
from verl_twgrpo.mini_clevrer.world.source import item_rng, lettered
from verl_twgrpo.mini_clevrer.world.thoughts import said
from verl_twgrpo.video.digest import video_digest

QUESTION = "Which of these objects does the video show?"
OPTION = "The {}"
OPTIONS = 4
SPEC = WorldSpec(objects=3)

_VERDICT = {True: " yes. ", False: " no. "}
_OPTION, _SEEN = "{}: ", ", "
# what a tokenizer should have as one token each
PHRASES = (QUESTION, _SEEN, *(_OPTION.format(letter) for letter in LETTERS[:OPTIONS]), *_VERDICT.values())


@dataclass(frozen=True)
class Shown:
    """A world and the names of the objects asked about; ``truth`` has a flag per option, at least one of them true."""

    world: World
    options: tuple[str, ...]
    truth: tuple[bool, ...]


def draw(rng: np.random.Generator) -> Shown:
    """A world of three objects in any of the colours, and a question about four colours in random order."""
    world = None
    while world is None:
        world = draw_world(rng, SPEC)
    colours = [str(colour) for colour in rng.permutation(COLOURS)]
    bodies = tuple(replace(body, colour=colour) for body, colour in zip(world.bodies, colours, strict=False))
    asked = [str(colour) for colour in rng.permutation(COLOURS)[:OPTIONS]]
    there = {body.colour: body.name for body in bodies}
    options = tuple(there.get(colour, f"{colour} {rng.choice(SHAPES)}") for colour in asked)
    return Shown(World(bodies, world.radius), options, tuple(colour in there for colour in asked))


def to_item(shown: Shown, name: str, split: str, video: str, **more: Any) -> Item:
    """The question as an item about the file ``video``; ``more`` are further fields of ``Item``."""
    return Item(
        id=name,
        source="mini_clevrer",
        split=split,
        question=QUESTION,
        options=tuple(OPTION.format(option) for option in shown.options),
        answers=lettered(shown.truth),
        video=video,
        question_type="shown",
        **more,
    )


def generate(out_dir: str | Path, split: str, count: int, seed: int) -> list[Item]:
    """Make ``count`` items and their videos in ``out_dir/videos/<split>/``; item k depends on split, seed, k only."""
    items = []
    for index in range(count):
        shown = draw(item_rng(split, index, seed))
        name = f"shown-{split}-{seed}-{index:05d}"
        path = Path(out_dir) / "videos" / split / f"{name}.mp4"
        write_mp4(frames(shown.world), path)
        provenance = {"seed": [seed, split, index], "dropped": 0}
        items.append(to_item(shown, name, split, str(path), video_digest=video_digest(path), provenance=provenance))
    return items


def response(rng: np.random.Generator, shown: Shown, *, slips: float = 0.0, untagged: float = 0.0) -> str:
    """The colours from left to right, a verdict on each option, the answer: ``<think>...</think><answer>A,C</answer>``.

    Each verdict is wrong with chance ``slips``, and the answer then has the letters of the verdicts; with chance
    ``untagged`` the answer's tags are missing. Both are what a policy can unlearn.
    """
    verdicts = [bool(true != (rng.random() < slips)) for true in shown.truth]
    seen = [body.colour + _SEEN for body in sorted(shown.world.bodies, key=lambda body: body.x)]
    thinking = "".join(seen) + "".join(
        _OPTION.format(letter) + option.split()[0] + _VERDICT[verdict]
        for letter, option, verdict in zip(LETTERS, shown.options, verdicts, strict=False)
    )
    answer = ",".join(letter for letter, v in zip(LETTERS, verdicts, strict=False) if v)
    return said(thinking, answer, tagged=rng.random() >= untagged)
