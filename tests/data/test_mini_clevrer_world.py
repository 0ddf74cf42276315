"""The physics against an independent simulation in small time steps."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from verl_twgrpo.mini_clevrer.world.physics import Body, World, WorldSpec, draw_world, simulate


def stepped(world: World, without: int | None = None, steps: int = 4000) -> tuple[set[tuple[int, int]], np.ndarray]:
    """Pairs that touch and final centres, by moving everything a little and looking: no event is computed."""
    kept = [i for i in range(len(world.bodies)) if i != without]
    place = np.array([(world.bodies[i].x, world.bodies[i].y) for i in kept])
    velocity = np.array([(world.bodies[i].vx, world.bodies[i].vy) for i in kept])
    touched = set()
    for _ in range(steps):
        place = place + velocity / steps
        stopped = ((place < world.radius) | (place > 1 - world.radius)).any(axis=1)
        for a, b in itertools.combinations(range(len(kept)), 2):
            if math.dist(place[a], place[b]) < 2 * world.radius:
                touched.add((kept[a], kept[b]))
                stopped[[a, b]] = True
        velocity[stopped] = 0
    return touched, place


def draw(seed: int, spec: WorldSpec) -> World:
    rng = np.random.default_rng(seed)
    return next(world for world in iter(lambda: draw_world(rng, spec), 0) if world is not None)


def ball(x: float, y: float, vx: float = 0.0, vy: float = 0.0) -> Body:
    return Body("red", "circle", x, y, vx, vy)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [WorldSpec(), WorldSpec(objects=5, radius=0.1, start_gap=0.23)])
@pytest.mark.parametrize("seed", range(6))
def test_contacts_and_final_places_agree_with_small_time_steps(seed, spec):
    world = draw(seed, spec)
    for without in (None, *range(spec.objects)):
        motion = simulate(world, without)
        touched, final = stepped(world, without)
        assert set(motion.contacts) == touched
        expected = [motion.positions(1.0)[i] for i in sorted(motion.positions(1.0))]
        np.testing.assert_allclose(final, expected, atol=2e-3)


def test_two_that_meet_head_on_touch_at_half_the_free_distance_over_the_speed_and_stop():
    motion = simulate(World((ball(0.2, 0.5, 0.5), ball(0.8, 0.5, -0.5)), 0.1))
    assert motion.contacts == {(0, 1): pytest.approx(0.4)}
    assert motion.positions(1.0) == {0: pytest.approx((0.4, 0.5)), 1: pytest.approx((0.6, 0.5))}


def test_a_stopped_object_can_still_be_hit_and_a_wall_stops():
    world = World((ball(0.3, 0.5), ball(0.6, 0.5, -1.0), ball(0.5, 0.9, 0.0, 1.0)), 0.1)
    motion = simulate(world)
    assert list(motion.contacts) == [(0, 1)]
    assert motion.positions(1.0)[2] == pytest.approx((0.5, 0.9))


def test_without_an_object_the_one_it_shielded_is_hit():
    world = World((ball(0.15, 0.5, 1.0), ball(0.5, 0.5), ball(0.85, 0.5)), 0.1)
    assert set(simulate(world).contacts) == {(0, 1)}
    assert set(simulate(world, without=1).contacts) == {(0, 2)}


def test_the_gap_is_the_nearest_miss():
    # passes above at a distance of .35 of centres, and never comes nearer
    world = World((ball(0.5, 0.5), ball(0.1, 0.85, 0.8)), 0.1)
    assert simulate(world).gap == pytest.approx(0.15)


@pytest.mark.parametrize("seed", range(4))
def test_no_drawn_world_has_a_miss_too_near_to_see(seed):
    spec = WorldSpec()
    world = draw(seed, spec)
    starts = [(body.x, body.y) for body in world.bodies]
    assert all(math.dist(a, b) >= spec.start_gap for a, b in itertools.combinations(starts, 2))
    assert len({body.colour for body in world.bodies}) == spec.objects
    for without in (None, *range(spec.objects)):
        motion = simulate(world, without)
        places = [motion.positions(time) for time in np.linspace(0, 1, 500)]
        for i, j in itertools.combinations(places[0], 2):
            if (i, j) not in motion.contacts:
                nearest = min(math.dist(place[i], place[j]) for place in places)
                assert nearest >= 2 * world.radius + spec.clearance - 1e-9


@pytest.mark.parametrize("objects", [2, 7])
def test_a_number_of_objects_without_a_question_is_refused(objects):
    with pytest.raises(ValueError, match="objects"):
        WorldSpec(objects=objects)
