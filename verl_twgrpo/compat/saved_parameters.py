"""Parameters that separate_async puts away are a copy, also where they are on the CPU already.

verl 0.9.1 saves FSDP2's shards by ``.detach().cpu()`` (``fsdp2_sharded_save_to_cpu``), which is the very same memory
where a shard is on the CPU: in a run without GPUs, or with FSDP2's ``offload_policy``. The next update then changes
what was saved, and later parts of a step have old log-probs, and weights, of another policy than that of its beginning.
FSDP1's function has ``copy=True``.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
import wrapt

from verl_twgrpo.compat.workaround import Workaround


def copy_what_is_saved(fsdp_utils: ModuleType) -> None:
    """For ``verl.utils.fsdp_utils``."""
    wrapt.wrap_function_wrapper(fsdp_utils, "fsdp2_sharded_save_to_cpu", _save)


def _save(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    model: torch.nn.Module = args[0] if args else kwargs["model"]
    shards, spec = wrapped(*args, **kwargs)
    own = {getattr(parameter, "_local_tensor", parameter).data_ptr() for parameter in model.parameters()}
    copied = {
        name: (shard.clone() if shard.data_ptr() in own else shard, placed) for name, (shard, placed) in shards.items()
    }
    return copied, spec


WORKAROUND = Workaround(
    module="verl.utils.fsdp_utils",
    apply=copy_what_is_saved,
    because="saves parameters that are on the CPU without a copy: separate_async's old policy moves with updates",
    versions="verl==0.9.1",
    link="patches/0012-saved-parameters.patch",
)
