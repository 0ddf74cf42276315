"""Compose verl's configuration once per start instead of twice.

Hydra composes all of it a first time only to read ``hydra.mode`` (Hydra.get_mode), which verl's configuration does not
set: half a second, and all that a refused run does beside imports.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import wrapt

PRIMARY = "ppo_trainer"


def take_the_mode_for_unset(hydra: ModuleType) -> None:
    """For ``hydra._internal.hydra``. Other programs, and runs with an override of Hydra's own, are left alone."""

    def get_mode(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        name, overrides = kwargs.get("config_name"), kwargs.get("overrides", ())  # Hydra names both
        if name == PRIMARY and not any("hydra" in override for override in overrides):
            return None
        return wrapped(*args, **kwargs)

    if hasattr(hydra.Hydra, "get_mode"):
        wrapt.wrap_function_wrapper(hydra, "Hydra.get_mode", get_mode)
