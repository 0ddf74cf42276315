"""verl's platform "cpu": a machine without an accelerator takes the accelerator's place.

The whole of verl's loop (FSDP2 over gloo, vLLM, Ray, TransferQueue) then runs on processor cores. verl asks for a
device namespace, a collective backend and a Ray resource; the CPU answers with torch.cpu, gloo and logical "GPU" slots
(``ray_kwargs.ray_init.num_gpus``).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import psutil
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry


def torch_is_cpu_build() -> bool:
    """Whether the installed torch can drive no accelerator at all.

    A driver node without a GPU inside a GPU cluster has a CUDA build, so it is not mistaken for a CPU machine.
    """
    return torch.version.cuda is None and torch.version.hip is None and not hasattr(torch, "npu")


class CPUDeviceModule(ModuleType):
    """torch.cpu plus the calls of torch.cuda that verl makes; memory figures are the process's resident bytes."""

    def __init__(self) -> None:
        super().__init__("verl_twgrpo.platforms.cpu.device_module")

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    @staticmethod
    def get_device_name(device: Any = None) -> str:
        return "CPU"  # as verl's table of peak FLOP/s calls it (verl/utils/flops_counter.py)

    @staticmethod
    def memory_allocated(device: Any = None) -> int:
        return psutil.Process().memory_info().rss

    @staticmethod
    def max_memory_allocated(device: Any = None) -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    memory_reserved = memory_allocated
    max_memory_reserved = max_memory_allocated

    @staticmethod
    def mem_get_info(device: Any = None) -> tuple[int, int]:
        memory = psutil.virtual_memory()
        return memory.available, memory.total

    @staticmethod
    def reset_peak_memory_stats(device: Any = None) -> None:
        """The kernel keeps the peak for the life of the process."""

    @staticmethod
    def empty_cache() -> None:
        """There is no caching allocator."""

    @staticmethod
    def ipc_collect() -> None:
        """There are no device memory handles."""

    @staticmethod
    def get_rng_state(device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """Implements verl/plugin/platform/platform_base.py for processor cores."""

    _device_module = CPUDeviceModule()

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> ModuleType:
        return self._device_module

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return torch_is_cpu_build()

    def current_device(self) -> Any:
        # verl hands this to Tensor.to(): the number 0 would mean cuda:0 there.
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        """All ranks share the cores."""

    def synchronize(self, device_index: int | None = None) -> None:
        """Nothing runs asynchronously."""

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        """There is no caching allocator."""

    def empty_cache(self) -> None:
        """There is no caching allocator."""

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        """No device profiler."""

    def profiler_stop(self) -> None:
        """No device profiler."""

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> Any:
        return None


def is_selected() -> bool:
    """Whether verl will run on this platform in this process: by ``VERL_PLATFORM``, else by the build of torch."""
    chosen = os.environ.get("VERL_PLATFORM", "").strip().lower()
    return chosen == "cpu" if chosen else torch_is_cpu_build()
