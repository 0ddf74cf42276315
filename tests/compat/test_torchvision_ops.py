"""PyPI's torchvision, a CUDA build, beside a CPU build of torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from verl_twgrpo.platforms import cpu

pytestmark = pytest.mark.skipif(not cpu.torch_is_cpu_build(), reason="this torch can drive an accelerator")


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.slow
def test_it_imports():
    done = run("from verl_twgrpo.torchvision_ops import declare_missing_ops as d; d(); d(); import torchvision")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_one_that_works_is_left_alone():
    # here: one that is imported already
    code = "import sys, types; sys.modules['torchvision'] = types.ModuleType('torchvision');"
    code += "from verl_twgrpo.torchvision_ops import declare_missing_ops as d; sys.exit(d())"
    assert run(code).returncode == 0


@pytest.mark.slow
@pytest.mark.upstream_bug
def test_its_import_fails_by_itself():
    assert "operator torchvision::nms does not exist" in run("import torchvision").stderr
