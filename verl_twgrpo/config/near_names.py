"""A misspelt setting ends in one sentence that names the near ones, in place of Hydra's advice to append it.

Hydra has no hook between its parser and its configuration, so the function that puts overrides in is wrapped, and with
it the one that prints errors, which would add how to get a stack trace. Other programs' configurations are left alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import wrapt
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

# a node with no more settings than this has all of them listed
LISTED = 24


class NoSuchSettingError(ConfigCompositionException):
    """An override of a setting that the configuration does not have."""


def no_such_setting(key: str, config: DictConfig, override: str = "") -> str:
    """The sentence for ``key``, which is not in ``config``; ``override`` is what would add it."""
    *above, name = key.split(".")
    node: Any = config
    for depth, part in enumerate(above):
        inner = OmegaConf.select(node, part) if part in node else None
        if not isinstance(inner, DictConfig):
            # the misspelt part stands further to the front
            above, name = above[:depth], part
            break
        node = inner
    siblings = [str(k) for k in node if not str(k).startswith("_")]
    prefix = "".join(f"{part}." for part in above)
    near = [f"{prefix}{sibling}" for sibling in nearest(name, siblings)]
    # the right name in another node, such as train_batch_size for data.train_batch_size
    near += [path for path in _paths(config) if path.endswith(f".{key}") and path not in near][:3]
    text = f"{prefix}{name}: there is no such setting"
    if near:
        text += f"; did you mean {' or '.join(near)}?"
    if above and 0 < len(siblings) <= LISTED:
        text += f"{'' if near else ';'} choose from {', '.join(siblings)}"
    elif override and not near:
        text += f"; to add it to the configuration all the same: {override}"
    return text


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Up to three of ``names`` that could be meant by ``name``, the nearest first."""
    return difflib.get_close_matches(name, list(names), n=3, cutoff=0.7)


def name_near_settings(loader: ModuleType) -> None:
    """For ``hydra._internal.config_loader_impl``."""

    def apply(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        try:
            return wrapped(*args, **kwargs)
        except ConfigCompositionException as error:
            overrides, config = args
            missing = isinstance(error.__cause__, ConfigAttributeError | ConfigKeyError)
            if not missing or "actor_rollout_ref" not in config:
                raise
            for override in overrides:
                if str(error).startswith(f"Could not override '{override.key_or_group}'"):
                    text = no_such_setting(override.key_or_group, config, f"+{override.input_line}")
                    raise NoSuchSettingError(text) from None
            raise

    if hasattr(loader.ConfigLoaderImpl, "_apply_overrides_to_config"):
        wrapt.wrap_function_wrapper(loader, "ConfigLoaderImpl._apply_overrides_to_config", apply)


def end_with_the_sentence(utils: ModuleType) -> None:
    """For ``hydra._internal.utils``, whose ``run_and_report`` prints what a program of Hydra ends with."""

    def report(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        (function,) = args

        def run() -> Any:
            try:
                return function()
            except NoSuchSettingError as error:
                raise SystemExit(f"verl-twgrpo: {error}") from None

        return wrapped(run)

    wrapt.wrap_function_wrapper(utils, "run_and_report", report)


def _paths(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key, inner in node.items_ex(resolve=False):
        yield f"{prefix}{key}"
        if isinstance(inner, DictConfig) and not inner._is_none() and not inner._is_missing():
            yield from _paths(inner, f"{prefix}{key}.")
