"""``verl-twgrpo plan``: what a run will be, before any GPU is asked for; what cannot work is refused with its key."""

from __future__ import annotations

import argparse
import inspect
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The overrides of the run."""
    parser.description = (
        "Composes the configuration that `python -m verl.trainer.main_ppo OVERRIDES` would run with, checks it as that "
        "does, and prints batches, lengths, memory, steps and disk. Needs no GPU, and downloads nothing."
    )
    parser.add_argument("overrides", nargs="+", metavar="OVERRIDE", help="as for verl, e.g. recipe=evaluate")


def run(args: argparse.Namespace) -> int:
    """Print the plan; 0 if nothing stands against it. Raises ``ValueError`` or ``FileNotFoundError`` with the key."""
    warnings.simplefilter("ignore")  # other people's are not part of the screen
    config = compose_run(args.overrides)
    try:
        check_notes, absent = check_run(config)
        from verl_twgrpo.planning.summary import plan_lines

        lines, notes = plan_lines(config)
    except OmegaConfBaseException as error:  # an interpolation that leads nowhere, a key of another engine
        raise ValueError(" ".join(str(error).split())) from error
    notes += [*check_notes, *(f"not there yet: {what}" for what in absent)]
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        print(f"{label:<{width}}  {text}")
    for note in notes:
        print(f"note: {note}")
    return 0


def compose_run(overrides: list[str]) -> DictConfig:
    """The configuration of a run. Raises ``ValueError`` if Hydra cannot compose it."""
    import verl  # noqa: F401 - loads the plugin, which adds the groups
    from hydra import compose, initialize_config_module
    from hydra.errors import HydraException

    with initialize_config_module("verl.trainer.config", version_base=None):
        try:
            return compose("ppo_trainer", overrides=overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(" ".join(str(error).partition("Config search path")[0].split())) from error


def check_run(config: DictConfig) -> tuple[list[str], list[str]]:
    """The checks of the start of training, ours and verl's; returns notes, and what is said of data not there yet.

    Raises:
        ValueError: with the key of what cannot work.
    """
    from hydra.errors import HydraException
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    from verl_twgrpo.training.checks import check_training_config

    absent: list[str] = []
    with _nothing_downloaded(config) as left_for_later:
        notes = [*check_training_config(config, absent), *left_for_later]
    try:
        with redirect_stdout(io.StringIO()):
            # without the plugin's wrapper, which would check the files once more and end the process
            inspect.unwrap(validate_config)(config, need_reference_policy(config), need_critic(config))
    except (AssertionError, HydraException, ValueError) as error:
        raise ValueError(f"verl: {error.__cause__ or error}") from error
    return notes, absent


@contextmanager
def _nothing_downloaded(config: DictConfig) -> Iterator[list[str]]:
    """Without the comparison of a model's two sides, which would fetch it from the hub; says so."""
    from verl_twgrpo.planning.model import local_folder
    from verl_twgrpo.training.checks.video_time import SWITCH, has_videos

    path, before = config.actor_rollout_ref.model.path, os.environ.get(SWITCH)
    if before == "0" or not path or local_folder(path) is not None:
        yield []
        return
    os.environ[SWITCH] = "0"
    try:
        what = f"{path} is not on this disk: training will compare how vLLM and the actor see its videos"
        yield [what] if has_videos(config) else []
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before
