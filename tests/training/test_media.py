"""Pictures of a step in the loggers of verl's own ``Tracking``, as they lie in TensorBoard's files."""

from __future__ import annotations

import io
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import verl.trainer.ppo.core_algos  # noqa: F401 - first: importing it loads training.losses

from verl_twgrpo.training import media
from verl_twgrpo.training.settings import TWGRPOConfig

REWARDS = [1.0, 0.0, 0.5, 0.0, 1.0, 1.0, 0.0]


@pytest.fixture
def step(fake_step, ragged_batch):
    def whole(value):
        rows = zip(ragged_batch.prompts, ragged_batch.responses, strict=True)
        return torch.nested.as_nested_tensor(
            [torch.cat([torch.zeros(len(p) - 1), value(len(r)), torch.zeros(1)]) for p, r in rows], layout=torch.jagged
        )

    def infer(extra_info):
        return {
            "log_probs": whole(lambda n: torch.full((n,), -1.0)),
            "entropy": whole(lambda n: torch.zeros(n)),
            "divergence": whole(lambda n: torch.arange(n).float()),
        }

    return fake_step(ragged_batch, infer, REWARDS)


def images(folder):
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        name: [(one.step, Image.open(io.BytesIO(one.encoded_image_string))) for one in events.Images(name)]
        for name in events.Tags()["images"]
    }


@pytest.mark.slow
def test_pictures_reach_tensorboard_each_so_many_steps(step, tmp_path, monkeypatch):
    from verl.utils.tracking import Tracking

    monkeypatch.setenv("TENSORBOARD_DIR", str(tmp_path))
    tracking = Tracking("project", "run", ["console", "tensorboard"])
    for freq in (5, 4):  # the step is number 12
        trainer = step.trainer(media_freq=freq)
        trainer.logger = tracking
        step.run(trainer)
    tracking.finish()
    found = images(tmp_path)
    assert set(found) == {media.WEIGHTS, media.TOKENS}
    for ((number, picture),) in found.values():
        assert number == 12 and min(picture.size) > 100
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 20  # something is drawn


def test_tokens_are_the_warmer_the_more_they_weigh():
    heavy, light = (
        media._tokens([media.Shown("a title", ["$x_1$ \n"] * 9, [weight] * 4 + [1.0] * 4 + [2.0])], 1)
        for weight in (1.8, 1.1)
    )
    assert heavy.shape == light.shape
    blue = [picture[..., 2].astype(float).mean() for picture in (heavy, light)]
    assert blue[0] < blue[1]


def test_a_logger_that_takes_no_pictures_is_said_once_and_training_goes_on(monkeypatch, caplog):
    def log(data, step):
        raise ConnectionError("no route")

    monkeypatch.setattr(media, "_failed", set())
    sent = []
    broken = SimpleNamespace(log=log, Image=lambda picture: picture)
    other = SimpleNamespace(log=lambda data, step: sent.append((step, data)), Image=lambda picture: "image")
    tracking = SimpleNamespace(logger={"wandb": broken, "swanlab": other, "console": None})
    with caplog.at_level(logging.WARNING):
        for number in (1, 2):
            media.log_pictures(tracking, {"a": np.zeros((2, 2, 3), np.uint8)}, number)
    assert [record.message.split(" (")[0] for record in caplog.records] == [
        "algorithm.tw_grpo.media_freq: wandb took no pictures"
    ]
    assert sent == [(1, {"a": "image"}), (2, {"a": "image"})]


def test_an_impossible_frequency_is_named():
    with pytest.raises(ValueError, match="media_freq"):
        TWGRPOConfig(media_freq=-1)
