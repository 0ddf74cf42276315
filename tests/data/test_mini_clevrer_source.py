"""The items: truth against small time steps, seeding, files."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import av
import numpy as np
import pytest

from verl_twgrpo.mini_clevrer.world import Difficulty, WorldSpec, draw, generate
from verl_twgrpo.mini_clevrer.world.questions import draw_question
from verl_twgrpo.mini_clevrer.world.render import FRAMES, FRAMES_PER_SECOND, SIZE, frames
from verl_twgrpo.mini_clevrer.world.source import SPLITS

# worlds are simulated for them
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("mini clevrer")
    return out, generate(out, "train", 40, seed=7), generate(out, "validation", 20, seed=7)


def collisions(bodies: list[dict], radius: float, without: str | None, steps: int = 4000) -> set[frozenset[str]]:
    """Names of objects that touch, read from an item's provenance and moved in small steps."""
    bodies = [body for body in bodies if f"{body['colour']} {body['shape']}" != without]
    names = [f"{body['colour']} {body['shape']}" for body in bodies]
    place = np.array([(body["x"], body["y"]) for body in bodies])
    velocity = np.array([(body["vx"], body["vy"]) for body in bodies])
    touched = set()
    for _ in range(steps):
        place = place + velocity / steps
        velocity[((place < radius) | (place > 1 - radius)).any(axis=1)] = 0
        for a, b in itertools.combinations(range(len(names)), 2):
            if math.dist(place[a], place[b]) < 2 * radius:
                touched.add(frozenset((names[a], names[b])))
                velocity[[a, b]] = 0
    return touched


def named_pair(option: str) -> frozenset[str]:
    first, second = option.removeprefix("The ").split(" collides with the ")
    return frozenset((first, second))


@pytest.mark.slow
def test_the_answers_are_the_collisions_that_small_time_steps_count_without_the_object(made):
    _, train, validation = made
    for item in [*train[:12], *validation[:6]]:
        removed = item.question.removeprefix("Without the ").removesuffix(", what will happen?")
        happened = collisions(item.provenance["bodies"], item.provenance["radius"], removed)
        pairs = [named_pair(option) for option in item.options]
        assert item.answers == {letter for letter, p in zip(item.letters, pairs, strict=True) if p in happened}
        assert all(removed not in pair for pair in pairs)
        assert len(set(pairs)) == len(pairs)
        # four objects leave exactly three pairs: nothing that happens is left out
        assert happened == {p for letter, p in zip(item.letters, pairs, strict=True) if letter in item.answers}
        seen = collisions(item.provenance["bodies"], item.provenance["radius"], None)
        assert item.provenance["observed"] == [
            letter for letter, p in zip(item.letters, pairs, strict=True) if p in seen
        ]


@pytest.mark.slow
def test_counterfactual_answers_often_differ_from_what_was_seen_and_vary_in_number(made):
    _, train, validation = made
    items = [*train, *validation]
    differ = np.mean([sorted(item.answers) != item.provenance["observed"] for item in items])
    assert 0.2 < differ < 0.7
    assert {len(item.answers) for item in items} == {1, 2}


def test_an_item_is_the_same_whatever_the_count(tmp_path, made):
    out, train, _ = made
    again = generate(tmp_path, "train", 3, seed=7)
    for old, new in zip(train, again, strict=False):
        assert replace(old, video="-") == replace(new, video="-")
        assert old.provenance == new.provenance and old.video_digest == new.video_digest


@pytest.mark.slow
def test_splits_and_seeds_share_no_world(made):
    worlds = [draw(split, index, seed, Difficulty()).world for split in SPLITS for seed in (0, 1) for index in range(3)]
    assert len({world.bodies for world in worlds}) == len(worlds)
    _, train, validation = made
    assert not {str(item.provenance["seed"]) for item in train} & {str(item.provenance["seed"]) for item in validation}
    assert not {item.video_digest for item in train} & {item.video_digest for item in validation}


def test_questions_without_a_true_option_are_dropped_and_counted():
    # slow objects that start far apart seldom meet
    rare = Difficulty(WorldSpec(objects=3, radius=0.05, speed=(0.1, 0.4), start_gap=0.2), options=1)
    draws = [draw("train", index, 0, rare) for index in range(5)]
    assert all(any(drawn.question.truth) for drawn in draws)
    assert sum(drawn.dropped for drawn in draws) > 0
    # the count is of questions without a true option, not of refused worlds: none is dropped where all pairs meet
    assert draw("train", 0, 0, Difficulty()).dropped == 0


def test_the_videos_are_h264_that_shows_the_rendered_frames(made):
    out, train, _ = made
    for item in train[:3]:
        with av.open(item.video) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264" and stream.average_rate == FRAMES_PER_SECOND
            decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        assert decoded.shape == (FRAMES, SIZE, SIZE, 3)
        rendered = frames(draw("train", item.provenance["seed"][2], 7, Difficulty()).world)
        # colour is stored at half the resolution, so edges differ and surfaces do not
        assert np.abs(decoded.astype(int) - rendered).mean() < 4
    assert not list(out.rglob("*.part"))


def test_shapes_are_drawn_where_they_are_in_their_colour():
    world = draw("train", 0, 0, Difficulty()).world
    first, last = frames(world)[[0, -1]]
    for body in world.bodies:
        row, column = int(body.y * SIZE), int(body.x * SIZE)
        assert (first[row, column] != (128, 128, 128)).any()
    assert (first != last).any()


@pytest.mark.slow
def test_five_objects_and_four_options(tmp_path):
    harder = Difficulty(WorldSpec(objects=5, radius=0.1, start_gap=0.23), options=4)
    items = generate(tmp_path, "validation", 3, seed=0, difficulty=harder)
    assert all(len(item.options) == 4 and len(item.provenance["bodies"]) == 5 for item in items)


def test_more_options_than_pairs_and_unknown_splits_are_refused():
    world = draw("train", 0, 0, Difficulty()).world
    with pytest.raises(ValueError, match="4 options, need 1 to 3 with 4 objects"):
        draw_question(np.random.default_rng(0), world, 4)
    with pytest.raises(ValueError, match="split 'held_out' is unknown"):
        draw("held_out", 0, 0, Difficulty())


def test_both_truths_are_drawn_for_each_place_in_the_list(made):
    _, train, validation = made
    for letter in "ABC":
        rate = np.mean([letter in item.answers for item in (*train, *validation)])
        assert 0.3 < rate < 0.9
