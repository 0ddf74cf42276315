"""A run that dies says where its dumps are, which checkpoint is whole, and how it goes on."""

from __future__ import annotations

import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
from omegaconf import OmegaConf

from verl_twgrpo.training.exit_summary import exit_summary, first_cause, why

COMMAND = ["python", "-m", "verl.trainer.main_ppo", "recipe=demo_cpu", "trainer.experiment_name=a b"]


@pytest.fixture
def config(tmp_path):
    return OmegaConf.create(
        {
            "algorithm": {"tw_grpo": {"dump_dir": f"{tmp_path}/tw_grpo"}},
            "trainer": {
                "rollout_data_dir": "${algorithm.tw_grpo.dump_dir}/../rollouts",
                "validation_data_dir": None,
                "default_local_dir": f"{tmp_path}/checkpoints",
                "resume_mode": "auto",
            },
        }
    )


def saved(folder, step):
    (folder / f"global_step_{step}" / "actor").mkdir(parents=True)
    (folder / "latest_checkpointed_iteration.txt").write_text(str(step))


def test_it_names_every_dump_and_its_newest_file(config, tmp_path):
    (tmp_path / "tw_grpo").mkdir()
    (tmp_path / "tw_grpo" / "step_000003.parquet").touch()
    text = "\n".join(exit_summary(config, COMMAND))
    assert f"{tmp_path}/tw_grpo: 1 files, the newest step_000003.parquet" in text
    assert "rollouts: nothing yet" in text
    assert "not kept (trainer.validation_data_dir is not set)" in text


def test_the_command_can_be_pasted_and_resumes(config, tmp_path):
    *_, heading, command = exit_summary(config, COMMAND)
    assert heading == "It starts again with:"
    saved(tmp_path / "checkpoints", 4)
    *_, checkpoint, heading, command = exit_summary(config, COMMAND)
    assert checkpoint.split() == ["checkpoint", f"{tmp_path}/checkpoints/global_step_4"]
    assert heading == "It goes on from there with:"
    assert command.endswith("&& python -m verl.trainer.main_ppo recipe=demo_cpu 'trainer.experiment_name=a b'")
    config.trainer.resume_mode = "disable"
    assert exit_summary(config, COMMAND)[-1] == command + " trainer.resume_mode=auto"


def failed_in(function) -> str:
    """The text that an error has which crossed a process, as Ray writes it."""
    try:
        function()
    except Exception:
        return "\x1b[36mray::TaskRunner.run()\x1b[39m (pid=1, ip=10.0.0.1)\n" + traceback.format_exc()


def read_a_video():
    raise FileNotFoundError("8.mp4 is not there: make it\nwith a second line")


def train():
    try:
        read_a_video()
    except FileNotFoundError as error:
        raise RuntimeError("the step failed") from error


def test_the_first_cause_is_found_in_a_chain_and_in_the_text_of_another_process():
    first = "FileNotFoundError: 8.mp4 is not there: make it"
    with pytest.raises(RuntimeError) as chained:
        train()
    assert first_cause(chained.value) == first
    inner = failed_in(train)
    assert first_cause(Exception(inner)) == first
    outer = f'ray::TaskRunner.run()\n  File "a.py"\nray.exceptions.RayTaskError(RuntimeError): {inner}'
    assert first_cause(Exception(outer)) == first
    assert first_cause(ValueError("plain")) == "ValueError: plain"
    assert first_cause(ValueError()) == "ValueError: (no message)"
    assert why(KeyboardInterrupt()) == []


DRIVER = """
import sys
from omegaconf import OmegaConf
from verl_twgrpo.training.exit_summary import install_exit_summary
def run_ppo(config, task_runner_class):
    {body}
config = OmegaConf.load(sys.argv[1])
install_exit_summary(config)
install_exit_summary(config)
run_ppo(config, task_runner_class=None)
"""


def drive(config, tmp_path, body):
    OmegaConf.save(config, tmp_path / "config.yaml")
    command = [sys.executable, "-c", DRIVER.format(body=body), str(tmp_path / "config.yaml")]
    return subprocess.run(command, capture_output=True, text=True).stderr


@pytest.mark.parametrize("body", ["raise ValueError('broken')", "raise KeyboardInterrupt", "sys.exit(15)"])
@pytest.mark.slow
def test_whatever_ends_a_run_it_has_the_last_word_once(config, tmp_path, body):
    err = drive(config, tmp_path, body)
    assert err.count("What it leaves:") == 1
    assert "Traceback" not in err.split("What it leaves:")[1]


@pytest.mark.slow
def test_it_speaks_once_ray_prints_no_more(config, tmp_path):
    ray = "sys.modules['ray'] = types.SimpleNamespace(is_initialized=lambda: True, shutdown=lambda: print('a worker'))"
    err = drive(config, tmp_path, f"import types; sys.stdout = sys.stderr; {ray}; raise ValueError('broken')")
    assert err.index("a worker") < err.index("What it leaves:")


@pytest.mark.slow
def test_a_run_that_ends_well_and_one_without_tw_grpo_say_nothing(config, tmp_path):
    assert "What it leaves" not in drive(config, tmp_path, "pass")
    del config.algorithm["tw_grpo"]
    assert "What it leaves" not in drive(config, tmp_path, "raise ValueError('broken')")


def test_dumps_under_way_are_finished_when_the_loop_dies(monkeypatch):
    import verl  # noqa: F401 - loads the plugin
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    from verl_twgrpo.training.dump import StepDump
    from verl_twgrpo.training.trainer import TWGRPOTrainer

    trainer, release, written = object.__new__(TWGRPOTrainer), threading.Event(), []
    trainer._dump_executor, trainer._dump, trainer.config = ThreadPoolExecutor(max_workers=1), StepDump(None), None

    def dies(self, agent_loop_manager):
        self._dump_executor.submit(lambda: (release.wait(10), written.append("step 1")))
        threading.Timer(0.1, release.set).start()
        raise RuntimeError("a worker died")

    monkeypatch.setattr(PPOTrainerSync, "fit", dies)
    with pytest.raises(RuntimeError, match="a worker died"):
        trainer.fit(None)
    assert written == ["step 1"]
