"""The verl that is installed is one that the plugin was tested with."""

from __future__ import annotations

import os

import verl
from omegaconf import DictConfig

from .registry import check

TESTED = ("0.9.1",)
OVERRIDE = "VERL_TWGRPO_ANY_VERL"


@check()
def check_verl(config: DictConfig) -> list[str]:
    """The plugin overrides methods of verl's trainer and engine, which another version may have changed."""
    if verl.__version__ in TESTED:
        return []
    if os.environ.get(OVERRIDE) == "1":
        return [f"verl {verl.__version__} was not tested with this plugin ({OVERRIDE}=1)"]
    raise ValueError(
        f"verl {verl.__version__}: this plugin was tested with {', '.join(TESTED)} and overrides parts of it; install "
        f"that, or set {OVERRIDE}=1 to try"
    )
