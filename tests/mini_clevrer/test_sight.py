"""The vision tower learns where objects are, and says nothing yet."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from verl_twgrpo.mini_clevrer.model.checkpoint import build_model, build_processor
from verl_twgrpo.mini_clevrer.model.sight import Places, places, teach_sight
from verl_twgrpo.mini_clevrer.world.benchmark import SPEC
from verl_twgrpo.mini_clevrer.world.physics import COLOURS, draw_world
from verl_twgrpo.mini_clevrer.world.render import FRAMES, SIZE, frames


@pytest.fixture(scope="module")
def worlds():
    rng, found = np.random.default_rng(0), []
    while len(found) < 8:
        world = draw_world(rng, SPEC)
        if world is not None:
            found.append(world)
    return found


def test_places_are_where_the_picture_has_the_colour(worlds):
    for world in worlds:
        told, video = places(world), frames(world)
        assert told.shape == (FRAMES, len(COLOURS), 3)
        assert told[0, :, 0].sum() == len(world.bodies)
        for body in world.bodies:
            there, x, y = told[0, COLOURS.index(body.colour)]
            pixel = video[0, int(y * SIZE), int(x * SIZE)].astype(int)
            assert there == 1 and np.abs(pixel - 128).max() > 40  # not the background


def test_examples_depend_on_their_number_only(worlds):
    one, other = Places(worlds, 5, seed=1), Places(worlds, 9, seed=1)
    for k in range(5):
        for a, b in zip(one[k], other[k], strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one[0][0], one[1][0])


@pytest.mark.slow
def test_the_tower_learns_and_the_language_model_is_left_alone(worlds):
    processor = build_processor()
    model = build_model(processor, seed=0)
    words = {name: values.clone() for name, values in model.model.language_model.state_dict().items()}
    tower = [values.clone() for values in model.model.visual.parameters()]
    said = []
    error = teach_sight(model, processor, worlds, steps=60, batch_size=16, report=said.append)
    # standing in the middle of the frame is off by 0.4
    assert error < 0.36 and "sight: step 60 of 60" in said[-1]
    assert all(torch.equal(values, words[name]) for name, values in model.model.language_model.state_dict().items())
    assert not all(torch.equal(a, b) for a, b in zip(tower, model.model.visual.parameters(), strict=True))
