"""transformers' own models: verl replaces their methods for a whole process, and other tests build its engines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch import nn

from verl_twgrpo.torchvision_ops import declare_missing_ops

# this file may be read before the hook of tests/conftest.py runs
declare_missing_ops()
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl  # noqa: E402

# as they are while tests are collected: no engine has been built yet
STOCK = {
    kind: kind.forward
    for kind in vars(modeling_qwen2_5_vl).values()
    if isinstance(kind, type) and issubclass(kind, nn.Module)
}


@pytest.fixture(scope="module", autouse=True)
def stock_forward() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for kind, forward in STOCK.items():
            patch.setattr(kind, "forward", forward)
        yield
