"""Make ``algorithm=NAME`` and ``recipe=NAME`` selectable on stock verl.

verl's ``ppo_trainer.yaml`` has no such groups in its defaults list, and Hydra only selects what stands there. A config
source of ours serves that one file, verl's own text, with ``algorithm: null`` and ``recipe: null`` added at the end of
its list. With nothing selected the composed configuration is verl's, byte for byte.
"""

from __future__ import annotations

import sys
from importlib import resources
from importlib.resources.abc import Traversable

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import ListConfig, OmegaConf

SCHEME = "verl-twgrpo"
PRIMARY = "ppo_trainer.yaml"
# verl's entry points whose trainers know nothing of token weights, by the end of their search path
OTHER_TRAINERS = ("one_step_off_policy", "fully_async_policy")
# A recipe overrides the algorithm, so the algorithm stands first.
GROUPS = ("algorithm", "recipe")


def with_groups(defaults: ListConfig) -> ListConfig:
    """The defaults list with our groups added, unless verl has come to have them itself."""
    keys = {str(key) for entry in defaults if not isinstance(entry, str) for key in entry}
    for group in GROUPS:
        if group not in keys and f"{group}@{group}" not in keys:
            defaults.append({group: None})
    return defaults


class PrimaryConfigSource(ConfigSource):
    """Serves verl's primary config with our groups in its defaults list, and nothing else."""

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        if not self.is_config(config_path):
            raise ConfigLoadError(f"Config not found : {config_path}")
        text = resources.files("verl.trainer.config").joinpath(PRIMARY).read_text(encoding="utf-8")
        config = OmegaConf.create(text)
        config.defaults = with_groups(config.defaults)
        return ConfigResult(
            config=config, path=self.full_path(), provider=self.provider, header=ConfigSource._get_header_dict(text)
        )

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path == ""

    def is_config(self, config_path: str) -> bool:
        return self._normalize_file_name(config_path) == PRIMARY

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        wanted = config_path == "" and results_filter in (None, ObjectType.CONFIG)
        return [PRIMARY.removesuffix(".yaml")] if wanted else []


class VerlSearchPath(SearchPathPlugin):
    """Puts our sources into the search path of verl's own entry points; other Hydra programs are left alone."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        main = [entry for entry in search_path.get_path() if entry.provider == "main"]
        path = (main[0].path or "").removeprefix("pkg://").replace(".", "/").rstrip("/") if main else ""
        for name in OTHER_TRAINERS:
            if path.endswith(f"verl/experimental/{name}/config"):
                _refuse(name, sys.argv[1:])
        if not path.endswith("verl/trainer/config"):
            return
        search_path.prepend("verl-twgrpo", f"{SCHEME}://", anchor="main")
        search_path.append("verl-twgrpo", "pkg://verl_twgrpo.config")


def refusal(what: str, name: str) -> str:
    """The sentence for ``what``, a setting of ours, in a run of verl's entry point ``name``."""
    return (
        f"{what}: verl's {name} has a trainer of its own, which computes no token weights; start the run with "
        "python -m verl.trainer.main_ppo, with trainer.v1.trainer_mode=separate_async for rollouts on GPUs of their own"
    )


def _refuse(name: str, overrides: list[str]) -> None:
    ours = {f"{group}={entry.name.removesuffix('.yaml')}" for group in GROUPS for entry in _presets(group)}
    for override in overrides:
        bare = override.lstrip("+")
        if bare in ours or bare.startswith("algorithm.tw_grpo"):
            raise SystemExit(f"verl-twgrpo: {refusal(bare, name)}")


def _presets(group: str) -> list[Traversable]:
    return [entry for entry in resources.files("verl_twgrpo.config").joinpath(group).iterdir()]


def register() -> None:
    """Register both with Hydra, once per process."""
    plugins = Plugins.instance()
    for plugin in (PrimaryConfigSource, VerlSearchPath):
        plugins.register(plugin)
