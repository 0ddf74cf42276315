"""verl's process group over gloo."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from verl_twgrpo.platforms import cpu

ALONE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1", "VERL_PLATFORM": "cpu"}


def group_of(undo: str) -> subprocess.CompletedProcess:
    """The backend of the group that verl makes, in a process of its own; ``undo`` runs before."""
    code = f"""
import torch, verl
from verl.utils import distributed
{undo}
distributed.initialize_global_process_group_ray()
print(torch.distributed.get_backend())
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | ALONE)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not cpu.torch_is_cpu_build(), reason="this torch can drive an accelerator"),
]


def test_it_comes_up():
    done = group_of("")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["cpu:gloo"]


@pytest.mark.upstream_bug
def test_verl_names_gloo_twice():
    stock = "initialize_global_process_group_ray"
    done = group_of(f"distributed.{stock} = distributed.{stock}.__wrapped__")
    assert done.returncode != 0 and "cpu" in done.stderr.splitlines()[-1]
