"""mini-CLEVRER's questions of other tasks: when do two objects meet (temporal_grounding), how many pairs do (counting).

The simulator knows both. A meeting lasts from half a second before the contact to half a second after it, as far as the
video goes. As many meetings are early as late, and as many worlds are drawn with none as with one and with two, so that
no constant answer is worth much.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verl_twgrpo.data.schema import Item
from verl_twgrpo.mini_clevrer.world.physics import DURATION, World, WorldSpec, draw_world, simulate
from verl_twgrpo.mini_clevrer.world.render import FRAMES, FRAMES_PER_SECOND, frames, write_mp4
from verl_twgrpo.mini_clevrer.world.source import item_rng
from verl_twgrpo.mini_clevrer.world.thoughts import said
from verl_twgrpo.video.digest import video_digest

WHEN = "When do the {} and the {} meet, from half a second before to half a second after?"
HOW_MANY = "How many pairs of objects meet?"
SPEC = WorldSpec(objects=3, clearance=0.04, aim=0.35, speed=(0.2, 0.7), start_gap=0.4)
"""Slower than in the other questions, and aimed less at one another: some meet late, some miss."""
THIRDS = 3
"""As many meetings that are asked for lie in each part of the world's time."""
MOST = 2
"""Meetings that a world is drawn with at most: a third pair of three objects hardly ever meets."""
AROUND = 0.5
VIDEO_SECONDS = FRAMES / FRAMES_PER_SECOND
SECONDS = (FRAMES - 1) / FRAMES_PER_SECOND / DURATION
"""Seconds of the video for one of the world: the last frame shows the world's end."""

_AND, _MEET, _NONE = " and ", " meet. ", "none meet. "
# what a tokenizer should have as one token each
PHRASES = ("When do the ", ", from half a second before to half a second after?", " and the ", " meet", HOW_MANY,
           _AND, _MEET, _NONE, " to ")  # fmt: skip


@dataclass(frozen=True)
class Moment:
    """A world, and the pair that is asked about; None asks for the number of pairs that meet."""

    world: World
    pair: tuple[int, int] | None

    @property
    def task(self) -> str:
        """The reward task."""
        return "counting" if self.pair is None else "temporal_grounding"

    @property
    def question(self) -> str:
        """The question in words."""
        if self.pair is None:
            return HOW_MANY
        return WHEN.format(*(self.world.bodies[i].name for i in self.pair))

    @property
    def interval(self) -> tuple[float, float]:
        """When the pair meets, in seconds of the video. Raises ``KeyError`` for a pair that does not."""
        if self.pair is None:
            raise KeyError("no pair is asked about")
        first, second = self.pair
        middle = simulate(self.world).contacts[min(first, second), max(first, second)] * SECONDS
        return round(max(0.0, middle - AROUND), 3), round(min(VIDEO_SECONDS, middle + AROUND), 3)

    @property
    def truth(self) -> str:
        """The truth in the task's form."""
        if self.pair is None:
            return str(len(simulate(self.world).contacts))
        return json.dumps({"intervals": [list(self.interval)], "duration": VIDEO_SECONDS})


def draw(rng: np.random.Generator, *, counting: bool) -> Moment:
    """A world of three objects and a question about it."""
    meetings, third = int(rng.integers(MOST + 1)), int(rng.integers(THIRDS))
    while True:
        world = draw_world(rng, SPEC)
        if world is None:
            continue
        contacts = simulate(world).contacts
        if counting and len(contacts) == meetings:
            return Moment(world, None)
        timely = [pair for pair, time in contacts.items() if int(THIRDS * time / DURATION) == third]
        if not counting and timely:
            first, second = timely[0]
            return Moment(world, (second, first) if rng.random() < 0.5 else (first, second))


def generate(out_dir: str | Path, split: str, count: int, seed: int) -> list[Item]:
    """``count`` items and their videos in ``out_dir/videos/<split>/``, grounding and counting in turn.

    Item k depends on split, seed and k only.
    """
    items = []
    for index in range(count):
        moment = draw(item_rng(split, index, seed), counting=index % 2 == 1)
        name = f"moment-{split}-{seed}-{index:05d}"
        path = Path(out_dir) / "videos" / split / f"{name}.mp4"
        write_mp4(frames(moment.world), path)
        provenance = {"seed": [seed, split, index], "dropped": 0}
        items.append(to_item(moment, name, split, str(path), video_digest=video_digest(path), provenance=provenance))
    return items


def to_item(moment: Moment, name: str, split: str, video: str, **more: Any) -> Item:
    """The question as an item about the file ``video``; ``more`` are further fields of ``Item``."""
    return Item(
        id=name,
        source="mini_clevrer",
        split=split,
        question=moment.question,
        options=(),
        answers=frozenset(),
        video=video,
        question_type="when" if moment.pair else "how many",
        task=moment.task,
        truth=moment.truth,
        **more,
    )


def response(rng: np.random.Generator, moment: Moment, *, slips: float = 0.0, untagged: float = 0.0) -> str:
    """The pairs that meet, and the answer: ``<think>red and blue meet. </think><answer>0.5 to 1.5</answer>``.

    Times are whole quarters of a second, as frames are. With chance ``slips`` the answer is any other, with chance
    ``untagged`` its tags are missing. Both are what a policy can unlearn.
    """
    colours = [body.colour for body in moment.world.bodies]
    pairs = [moment.pair] if moment.pair else sorted(simulate(moment.world).contacts)
    thinking = "".join(f"{colours[i]}{_AND}{colours[j]}{_MEET}" for i, j in pairs) or _NONE
    careless = rng.random() < slips
    if moment.pair is None:
        answer = str(int(rng.integers(MOST + 1)) if careless else len(pairs))
    else:
        quarters = np.sort(rng.choice(9, 2, replace=False)) if careless else np.round(4 * np.array(moment.interval))
        answer = " to ".join(f"{quarter / 4:g}" for quarter in quarters)
    return said(thinking, answer, tagged=rng.random() >= untagged)
