"""What no test of the patches covers; test_patches.py runs it beside them, in the patched copy."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import verl
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from verl.utils.config import validate_config

REPOSITORY = Path(verl.__file__).resolve().parents[1]
CONFIG = REPOSITORY / "verl" / "trainer" / "config"


def composed(*overrides):
    with initialize_config_dir(str(CONFIG), version_base=None):
        return compose("ppo_trainer", overrides=list(overrides))


@pytest.mark.parametrize("engine", ["", "megatron", "veomni", "torchtitan"])
def test_the_generated_reference_is_up_to_date(engine):
    """As verl's scripts/generate_trainer_config.sh makes it."""
    text = OmegaConf.to_yaml(composed(*([f"model_engine={engine}"] if engine else [])))
    reference = (CONFIG / f"_generated_ppo_{engine + '_' if engine else ''}trainer.yaml").read_text(encoding="utf-8")
    assert reference.endswith("\n\n" + text[text.index("actor_rollout_ref:") :])


@pytest.mark.parametrize("script", sorted((REPOSITORY / "examples").rglob("*.sh")), ids=lambda script: script.name)
def test_an_example_script_composes_and_validates(script, tmp_path):
    recorder = tmp_path / "python3"
    recorder.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > arguments\n')
    recorder.chmod(0o755)
    files = dict.fromkeys(("TRAIN_FILE", "VAL_FILE", "REWARD_PATH"), "file")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", str(script)], cwd=tmp_path, env={**files, "PATH": path}, check=True, capture_output=True)
    module, *overrides = (tmp_path / "arguments").read_text().splitlines()[1:]
    assert module == "verl.trainer.main_ppo"
    config = composed(*overrides)
    validate_config(config, use_reference_policy=False, use_critic=False)
    assert config.actor_rollout_ref.actor.policy_loss.loss_mode == "tw_grpo"
