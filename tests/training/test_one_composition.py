"""verl's configuration is composed once per start, and whoever sets Hydra's mode is heard."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import verl  # noqa: F401 - loads the plugin
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.types import RunMode


@pytest.fixture
def hydra(monkeypatch):
    """A Hydra whose compositions are counted; each has the mode MULTIRUN."""
    made = object.__new__(Hydra)
    made.composed = []

    def compose(self, config_name, overrides, **_):
        made.composed.append(config_name)
        return SimpleNamespace(hydra=SimpleNamespace(mode=RunMode.MULTIRUN))

    monkeypatch.setattr(Hydra, "compose_config", compose)
    return made


def test_for_verls_trainer_nothing_is_composed_to_learn_that_the_mode_is_not_set(hydra):
    assert hydra.get_mode(config_name="ppo_trainer", overrides=["algorithm=tw_grpo"]) is None
    assert hydra.composed == []


@pytest.mark.parametrize(
    ("name", "overrides"),
    [("another", ["a=1"]), ("ppo_trainer", ["hydra.mode=MULTIRUN"]), ("ppo_trainer", ["+hydra=x"])],
)
def test_others_are_left_alone(hydra, name, overrides):
    assert hydra.get_mode(config_name=name, overrides=overrides) == RunMode.MULTIRUN
    assert hydra.composed == [name]


def test_verls_configuration_sets_no_mode():
    path = create_config_search_path("pkg://verl.trainer.config")
    config = ConfigLoaderImpl(path).load_configuration("ppo_trainer", [], RunMode.RUN)
    assert config.hydra.mode is None
