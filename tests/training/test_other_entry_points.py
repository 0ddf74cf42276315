"""verl's entry points with trainers of their own refuse token weights before anything starts."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from omegaconf import OmegaConf

from verl_twgrpo.config.hydra_groups import VerlSearchPath
from verl_twgrpo.training.checks.trainer import check_before_ray


def search_path(monkeypatch, path, *overrides):
    """The search path that a Hydra program at ``path`` gets, started with these overrides."""
    monkeypatch.setattr(sys, "argv", ["main.py", *overrides])
    found = ConfigSearchPathImpl()
    found.append("main", path)
    VerlSearchPath().manipulate_search_path(found)
    return [entry.provider for entry in found.get_path()]


@pytest.mark.parametrize("name", ["one_step_off_policy", "fully_async_policy"])
@pytest.mark.parametrize("path", ["pkg://verl.experimental.{}.config", "file:///usr/lib/verl/experimental/{}/config"])
def test_a_setting_of_ours_is_refused_by_its_name(monkeypatch, name, path):
    for override in ("algorithm=tw_grpo", "+algorithm=vppo", "recipe=demo_cpu", "+algorithm.tw_grpo.alpha=1"):
        with pytest.raises(SystemExit) as refused:
            search_path(monkeypatch, path.format(name), "data.train_batch_size=4", override)
        assert str(refused.value).startswith(f"verl-twgrpo: {override.lstrip('+')}: verl's {name} has a trainer of its")
    others = ["algorithm.adv_estimator=grpo", "algorithm=own", "+recipe=own"]
    assert search_path(monkeypatch, path.format(name), *others) == ["main"]


def test_verls_own_entry_point_gets_the_groups(monkeypatch):
    path = search_path(monkeypatch, "pkg://verl.trainer.config", "algorithm=tw_grpo")
    assert path == ["verl-twgrpo", "main", "verl-twgrpo"]


@pytest.mark.parametrize(
    ("key", "name"), [("async_training", "fully_async_policy"), ("rollout", "one_step_off_policy")]
)
def test_a_configuration_file_of_the_users_own_is_refused_before_ray(key, name):
    main_ppo = SimpleNamespace(run_ppo=lambda config, task_runner_class: started.append(task_runner_class))
    started = []
    check_before_ray(main_ppo)
    theirs, ours = {key: {"nnodes": 1}}, {"algorithm": {"tw_grpo": {"alpha": 0.7}}}
    with pytest.raises(SystemExit, match=f"verl-twgrpo: {key} beside algorithm.tw_grpo: verl's {name} has"):
        main_ppo.run_ppo(OmegaConf.create(theirs | ours), task_runner_class="runner")
    assert started == []
    for config in (theirs, ours):
        main_ppo.run_ppo(OmegaConf.create(config), task_runner_class="runner")
    assert started == ["runner", "runner"]


@pytest.mark.slow
@pytest.mark.parametrize("module", ["fully_async_policy.fully_async_main"])  # the other one is like it
def test_the_command_ends_with_the_sentence_and_starts_no_ray(module):
    done = subprocess.run(
        [sys.executable, "-m", f"verl.experimental.{module}", "algorithm=tw_grpo"], capture_output=True, text=True
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"verl-twgrpo: algorithm=tw_grpo: verl's {module.split('.')[0]} has a trainer of its own")
    assert "Traceback" not in done.stderr
    assert "ray init kwargs" not in done.stdout


def test_verl_starts_those_through_the_function_that_looks():
    """Both mains import ``run_ppo`` when they run (verl/experimental), so that they get the one that is wrapped."""
    import inspect

    from verl.experimental.one_step_off_policy import main_ppo as one_step_off
    from verl.trainer import main_ppo

    assert inspect.unwrap(main_ppo.run_ppo) is not main_ppo.run_ppo
    assert "from verl.trainer.main_ppo import run_ppo" in inspect.getsource(inspect.unwrap(one_step_off.main))
