"""mini-CLEVRER as a source of items: worlds, their videos and one counterfactual question each, all from a seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from verl_twgrpo.data.schema import LETTERS, Item
from verl_twgrpo.mini_clevrer.world.physics import World, WorldSpec, draw_world
from verl_twgrpo.mini_clevrer.world.questions import Question, draw_question, option_texts, question_text
from verl_twgrpo.mini_clevrer.world.render import frames, write_mp4
from verl_twgrpo.mini_clevrer.world.thoughts import VERDICTS
from verl_twgrpo.video.digest import video_digest

# A split is part of what seeds an item, so that no two splits share a world.
SPLITS = ("train", "validation", "warm_start", "tuning", "test")


@dataclass(frozen=True)
class Difficulty:
    """What the worlds are drawn from and how many options a question has."""

    world: WorldSpec = field(default_factory=WorldSpec)
    options: int = 3


@dataclass(frozen=True)
class Draw:
    """A world with a question that has a true option, and how many questions without one were thrown away before."""

    world: World
    question: Question
    dropped: int


def draw(split: str, index: int, seed: int, difficulty: Difficulty) -> Draw:
    """Item ``index`` of a split: it depends on nothing but the arguments.

    Raises ``ValueError`` for an unknown split.
    """
    rng = item_rng(split, index, seed)
    dropped = 0
    while True:
        world = draw_world(rng, difficulty.world)
        if world is None:
            continue
        question = draw_question(rng, world, difficulty.options)
        if any(question.truth):
            return Draw(world, question, dropped)
        dropped += 1


def item_rng(split: str, index: int, seed: int) -> np.random.Generator:
    """The random numbers of one item and of no other. Raises ``ValueError`` for an unknown split."""
    if split not in SPLITS:
        raise ValueError(f"mini_clevrer: split {split!r} is unknown, use one of {', '.join(SPLITS)}")
    return np.random.default_rng([seed, SPLITS.index(split), index])


def to_item(drawn: Draw, name: str, split: str, video: str, **more: Any) -> Item:
    """The question of a draw as an item about the file ``video``; ``more`` are further fields of ``Item``."""
    question = drawn.question
    return Item(
        id=name,
        source="mini_clevrer",
        split=split,
        question=question_text(drawn.world, question),
        options=option_texts(drawn.world, question),
        answers=lettered(question.truth),
        video=video,
        question_type=question.kind,
        decisive=VERDICTS,
        **more,
    )


def generate(
    out_dir: str | Path, split: str, count: int, seed: int, difficulty: Difficulty | None = None
) -> list[Item]:
    """Make ``count`` items; their videos are written to ``out_dir/videos/<split>/``, each whole or not at all.

    Item k is the same whatever ``count`` is. Its provenance holds the seed, the world, the letters that held in the
    video as it was (``observed``) and the number of questions without a true option that were ``dropped`` before it.
    """
    items = []
    for index in range(count):
        drawn = draw(split, index, seed, difficulty or Difficulty())
        name = f"{split}-{seed}-{index:05d}"
        path = Path(out_dir) / "videos" / split / f"{name}.mp4"
        write_mp4(frames(drawn.world), path)
        provenance = {
            "seed": [seed, split, index],
            "radius": drawn.world.radius,
            "bodies": [asdict(body) for body in drawn.world.bodies],
            "observed": sorted(lettered(drawn.question.observed)),
            "dropped": drawn.dropped,
        }
        items.append(to_item(drawn, name, split, str(path), video_digest=video_digest(path), provenance=provenance))
    return items


def lettered(flags: tuple[bool, ...]) -> frozenset[str]:
    """The letters of the options whose flag is set."""
    return frozenset(letter for letter, flag in zip(LETTERS, flags, strict=False) if flag)
