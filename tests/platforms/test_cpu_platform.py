"""verl on a machine without an accelerator."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import verl  # noqa: F401 - loads the plugin
from verl.plugin.platform import PlatformRegistry, get_platform

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
def test_pyav_reads_where_torchcodec_cannot_load():
    import qwen_vl_utils.vision_process as vision

    from verl_twgrpo.video.decode import read_frames

    assert vision.VIDEO_READER_BACKENDS["pyav"] is read_frames
    try:
        import torchcodec.decoders  # noqa: F401

        usable = {"torchcodec", "pyav"}
    except (ImportError, OSError, RuntimeError):
        usable = {"pyav"}
    assert vision.get_video_reader_backend() in usable


@pytest.mark.slow
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
