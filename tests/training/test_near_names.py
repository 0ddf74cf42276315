"""A misspelt setting is named with the near ones, in plan and in training alike."""

from __future__ import annotations

import subprocess
import sys

import pytest
import verl  # noqa: F401 - loads the plugin
from hydra import compose, initialize_config_module
from hydra.errors import ConfigCompositionException


def refused(*overrides: str, of: str = "ppo_trainer") -> str:
    with (
        initialize_config_module("verl.trainer.config", version_base=None),
        pytest.raises(ConfigCompositionException) as caught,
    ):
        compose(of, overrides=list(overrides))
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["algorithm=tw_grpo", "algorithm.tw_grpo.alhpa=1"],
            "algorithm.tw_grpo.alhpa: there is no such setting; did you mean algorithm.tw_grpo.alpha? choose from "
            "weighting, settings, divergence, alpha, ",
        ),
        (["data.max_prompt_lenght=1"], "data.max_prompt_lenght: there is no such setting; did you mean data.max_pr"),
        # the part that is wrong need not be the last, and the node may be missing
        (["actor_rollout.rollout.n=8"], "actor_rollout: there is no such setting; did you mean actor_rollout_ref?"),
        (["train_batch_size=8"], "train_batch_size: there is no such setting; did you mean data.train_batch_size"),
        (
            ["data.frame_cache=frames"],
            "data.frame_cache: there is no such setting; to add it to the configuration all the same: "
            "+data.frame_cache=frames",
        ),
    ],
)
def test_the_near_settings_are_named(overrides, sentence):
    said = refused(*overrides)
    assert said.startswith(sentence)
    assert "\n" not in said


@pytest.mark.slow
def test_other_errors_are_hydras_own():
    assert "Could not find 'recipe/nope'" in refused("recipe=nope")
    assert "Could not delete from config" in refused("~data.nope")


@pytest.mark.slow
def test_training_ends_with_that_sentence():
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "algorithm=tw_grpo", "algorithm.tw_grpo.alhpa=1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("verl-twgrpo: algorithm.tw_grpo.alhpa: there is no such setting; did you mean algorithm.")
    assert "Traceback" not in done.stderr
