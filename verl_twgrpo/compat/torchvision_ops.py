"""PyPI's torchvision beside a CPU build of torch; ../torchvision_ops.py is used where no verl is imported as well."""

from __future__ import annotations

from verl_twgrpo.compat.workaround import AT_ONCE, Workaround
from verl_twgrpo.platforms import cpu
from verl_twgrpo.torchvision_ops import declare_missing_ops

WORKAROUND = Workaround(
    module=AT_ONCE,
    apply=lambda _: declare_missing_ops(),
    because="has one wheel for Linux on PyPI, a CUDA build, whose import fails beside a CPU build of torch",
    versions="torchvision==0.28.0",
    needed=cpu.is_selected,
)
