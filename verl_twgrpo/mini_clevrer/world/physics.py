"""A small exact world: discs in a unit box fly straight until they touch something, and then stop for good.

Between contacts every path is a straight line, so contact times are roots of quadratics and nothing is stepped.
Stopping instead of bouncing keeps the chain of events short enough for a tiny model to follow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")
SHAPES = ("circle", "square")
DURATION = 1.0

# Objects (indices) that touched, smaller index first.
Pair = tuple[int, int]


@dataclass(frozen=True)
class WorldSpec:
    """What worlds are drawn from; lengths in box widths, speeds in box widths per video.

    ``clearance`` keeps the truth visible: no pair may miss by less than that, be it in the video or without any one of
    the objects. ``start_gap`` is the smallest distance of centres at the start. ``aim`` is the half-width of the square
    about the centre that objects fly towards. Raises ``ValueError`` for a number of objects that has no question.
    """

    objects: int = 4
    radius: float = 0.12
    speed: tuple[float, float] = (0.4, 0.8)
    start_gap: float = 2.3 * 0.12
    aim: float = 0.2
    clearance: float = 0.1

    def __post_init__(self) -> None:
        if not 3 <= self.objects <= len(COLOURS):
            raise ValueError(f"mini_clevrer: {self.objects} objects, need 3 to {len(COLOURS)}, each of its own colour")


@dataclass(frozen=True)
class Body:
    """A disc for the physics, a circle or a square for the eye; position and velocity at the start."""

    colour: str
    shape: str
    x: float
    y: float
    vx: float
    vy: float

    @property
    def name(self) -> str:
        """The object in words, e.g. ``"red circle"``."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class World:
    """The objects of one video and their common radius."""

    bodies: tuple[Body, ...]
    radius: float


@dataclass(frozen=True)
class Motion:
    """What happens in a world, perhaps without one object.

    ``legs`` holds (start time, x, y, vx, vy per object) for each stretch of straight motion; ``contacts`` the pairs
    that touch within the duration, in order, with the time and ``gap`` the smallest free distance (box widths) between
    surfaces over all pairs that never touch.
    """

    legs: tuple[tuple[float, dict[int, tuple[float, float, float, float]]], ...]
    contacts: dict[Pair, float]
    gap: float

    def positions(self, time: float) -> dict[int, tuple[float, float]]:
        """Centres of the objects at a time in [0, 1]."""
        start, state = next(leg for leg in reversed(self.legs) if leg[0] <= time)
        return {i: (x + vx * (time - start), y + vy * (time - start)) for i, (x, y, vx, vy) in state.items()}


def simulate(world: World, without: int | None = None) -> Motion:
    """Run the world for ``DURATION``, leaving out object ``without``: exact, event by event."""
    reach = 2 * world.radius
    state = {i: (b.x, b.y, b.vx, b.vy) for i, b in enumerate(world.bodies) if i != without}
    now, legs, contacts = 0.0, [], {}
    nearest: dict[Pair, float] = {}
    while True:
        legs.append((now, state))
        left = DURATION - now
        wait = left
        pair: Pair | None = None
        hitter: int | None = None
        for i, (x, y, vx, vy) in state.items():
            time = _time_to_wall(x, y, vx, vy, world.radius)
            if time < wait:
                wait, pair, hitter = time, None, i
        members = sorted(state)
        for a, i in enumerate(members):
            for j in members[a + 1 :]:
                if (i, j) not in contacts:
                    time = _time_to_touch(state[i], state[j], reach)
                    if time < wait:
                        wait, pair, hitter = time, (i, j), None
        for a, i in enumerate(members):
            for j in members[a + 1 :]:
                closest = _closest(state[i], state[j], wait)
                nearest[i, j] = min(closest, nearest.get((i, j), math.inf))
        if pair is None and hitter is None:
            break
        now += wait
        state = {i: (x + vx * wait, y + vy * wait, vx, vy) for i, (x, y, vx, vy) in state.items()}
        for i in pair or ((hitter,) if hitter is not None else ()):
            state[i] = (*state[i][:2], 0.0, 0.0)
        if pair is not None:
            contacts[pair] = now
    misses = [distance - reach for pair, distance in nearest.items() if pair not in contacts]
    return Motion(tuple(legs), contacts, min(misses, default=math.inf))


def draw_world(rng: np.random.Generator, spec: WorldSpec) -> World | None:
    """Draw a world, or None if the draw broke one of the rules of the specification (draw again)."""
    low, high = spec.radius, 1 - spec.radius
    starts = rng.uniform(low, high, (spec.objects, 2))
    apart = np.linalg.norm(starts[:, None] - starts[None], axis=-1)[np.triu_indices(spec.objects, 1)]
    if apart.min() < spec.start_gap:
        return None
    path = rng.uniform(0.5 - spec.aim, 0.5 + spec.aim, (spec.objects, 2)) - starts
    velocity = path / np.linalg.norm(path, axis=1, keepdims=True) * rng.uniform(*spec.speed, (spec.objects, 1))
    # no more colours than objects: the fewer there are, the sooner a tiny model tells them apart
    colours = rng.permutation(COLOURS[: spec.objects])
    shapes = rng.choice(SHAPES, spec.objects)
    world = World(
        tuple(
            Body(str(colour), str(shape), *map(float, start), *map(float, v))
            for colour, shape, start, v in zip(colours, shapes, starts, velocity, strict=True)
        ),
        spec.radius,
    )
    # one miss that is too near to see, with or without any object, and the world is no use
    if any(simulate(world, without).gap < spec.clearance for without in (None, *range(spec.objects))):
        return None
    return world


def disguise(rng: np.random.Generator, world: World) -> World:
    """The same world seen from another side, in other colours and shapes: the same indices touch."""
    flip_x, flip_y, swap = rng.integers(2, size=3)
    colours = rng.permutation([body.colour for body in world.bodies])
    shapes = rng.choice(SHAPES, len(world.bodies))
    bodies = []
    for body, colour, shape in zip(world.bodies, colours, shapes, strict=True):
        x, vx = (1 - body.x, -body.vx) if flip_x else (body.x, body.vx)
        y, vy = (1 - body.y, -body.vy) if flip_y else (body.y, body.vy)
        if swap:
            x, y, vx, vy = y, x, vy, vx
        bodies.append(Body(str(colour), str(shape), x, y, vx, vy))
    return World(tuple(bodies), world.radius)


def _time_to_wall(x: float, y: float, vx: float, vy: float, radius: float) -> float:
    """Time until a disc touches a wall of the unit box; inf if it does not move."""
    times = [
        ((1 - radius if speed > 0 else radius) - place) / speed for place, speed in ((x, vx), (y, vy)) if speed != 0
    ]
    return max(0.0, min(times, default=math.inf))


def _time_to_touch(first: tuple[float, ...], second: tuple[float, ...], reach: float) -> float:
    """Time until two centres are ``reach`` apart: the smaller root of |d + v t|^2 = reach^2; inf if they never are."""
    dx, dy, vx, vy = (a - b for a, b in zip(first, second, strict=True))
    square, half = vx * vx + vy * vy, dx * vx + dy * vy
    root = half * half - square * (dx * dx + dy * dy - reach * reach)
    if half >= 0 or root <= 0:
        return math.inf
    return max(0.0, (-half - math.sqrt(root)) / square)


def _closest(first: tuple[float, ...], second: tuple[float, ...], duration: float) -> float:
    """The smallest distance of two centres within ``duration`` of straight motion."""
    dx, dy, vx, vy = (a - b for a, b in zip(first, second, strict=True))
    square = vx * vx + vy * vy
    time = min(max(-(dx * vx + dy * vy) / square, 0.0), duration) if square else 0.0
    return math.hypot(dx + vx * time, dy + vy * time)
