"""A reference policy on a machine whose only device is the CPU.

verl keeps the parameters of a reference policy under FSDP2 on the host, in pinned memory (``_build_fsdp_module`` in
verl/workers/engine/fsdp/transformer_impl.py), which torch refuses where there is no accelerator. On the CPU they are on
the host as they are.
"""

from __future__ import annotations

from typing import Any

from verl_twgrpo.compat.workaround import Workaround
from verl_twgrpo.platforms import cpu


def keep_where_it_is(engine: Any) -> None:
    """Let the engine ask for no offloading where it asks for the host's pinned memory."""
    from torch.distributed.fsdp import OffloadPolicy

    engine.CPUOffloadPolicy = lambda pin_memory=True: OffloadPolicy()


WORKAROUND = Workaround(
    module="verl.workers.engine.fsdp.transformer_impl",
    apply=keep_where_it_is,
    because="pins the memory of a reference policy, which torch refuses without an accelerator",
    versions="verl==0.9.1",
    needed=cpu.is_selected,
)
