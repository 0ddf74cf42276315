"""verl's process group on a machine whose only device is the CPU: it would name gloo twice."""

from __future__ import annotations

from types import ModuleType

import torch.distributed
import wrapt

from verl_twgrpo.compat.workaround import Workaround
from verl_twgrpo.platforms import cpu


def deduplicate_gloo_backend(module: ModuleType) -> None:
    """Wrap both initialisers of verl/utils/distributed.py: they ask for "cpu:gloo,cpu:gloo", which torch refuses."""
    for name in ("initialize_global_process_group", "initialize_global_process_group_ray"):
        wrapt.wrap_function_wrapper(module, name, _with_mended_backend)


def _with_mended_backend(wrapped, instance, args, kwargs):
    initialise = torch.distributed.init_process_group

    def init_process_group(backend: str | None = None, **options):
        return initialise("cpu:gloo" if backend == "cpu:gloo,cpu:gloo" else backend, **options)

    torch.distributed.init_process_group = init_process_group
    try:
        return wrapped(*args, **kwargs)
    finally:
        torch.distributed.init_process_group = initialise


WORKAROUND = Workaround(
    module="verl.utils.distributed",
    apply=deduplicate_gloo_backend,
    because='asks for the backend "cpu:gloo,cpu:gloo", which torch refuses',
    versions="verl==0.9.1",
    needed=cpu.is_selected,
)
