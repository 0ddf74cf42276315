"""The head pass as CUDA would run it: no mix of devices, no wait inside the loop over chunks, the CPU's values."""

from __future__ import annotations

import itertools

import pytest
import torch

from verl_twgrpo.algorithm import chunked_group_divergence

from .cuda_stand_in import CudaStandIn, OnDevice

V, H = 300, 16
DTYPES = [
    (torch.bfloat16, torch.bfloat16), (torch.float16, torch.float16), (torch.float32, torch.float32),
    (torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16),
]  # fmt: skip


@pytest.fixture(autouse=True)
def a_torch_without_a_gpu(monkeypatch):
    """torch looks for a driver before it takes "cuda" as the device of a new tensor."""
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    torch._C._ensureCUDADeviceGuardSet()


def run(kind, head_dtype, hidden_dtype, bias, temperature, log_prob_dtype, lengths, chunk):
    """What the stand-in gave, what the CPU gave, and the stand-in with its counts."""
    generator = torch.Generator().manual_seed(0)
    N = sum(lengths)
    hidden = torch.randn(N, H, generator=generator).to(hidden_dtype)
    head = torch.randn(V, H, generator=generator).to(head_dtype)
    bias_V = torch.randn(V, generator=generator).to(head_dtype) if bias else None
    targets = torch.randint(V, (N,), generator=generator)
    settings = (temperature, kind)
    expected = chunked_group_divergence(hidden, lengths, head, bias_V, *settings, targets, chunk, log_prob_dtype)
    with CudaStandIn() as cuda:
        inputs = [None if tensor is None else cuda.put(tensor) for tensor in (hidden, head, bias_V, targets)]
        hidden, head, bias_V, targets = inputs
        actual = chunked_group_divergence(hidden, lengths, head, bias_V, *settings, targets, chunk, log_prob_dtype)
    return actual, expected, cuda


# 30 of 240: every kind with every pair of types, the other settings in turn
OTHERS = itertools.cycle(itertools.product((False, True), (1.0, 0.7), (None, torch.bfloat16), (None, 8)))
CASES = [
    (kind, *dtypes, *next(OTHERS))
    for _ in range(2)
    for kind, dtypes in itertools.product(("jsd", "released", "live"), DTYPES)
]


@pytest.mark.parametrize("kind, head, hidden, bias, temperature, log_prob_dtype, chunk", CASES)
def test_devices_do_not_mix_and_values_are_the_cpus(kind, head, hidden, bias, temperature, log_prob_dtype, chunk):
    actual, expected, _ = run(kind, head, hidden, bias, temperature, log_prob_dtype, [5, 0, 9, 9, 1], chunk)
    for name in ("divergence_T", "log_probs_N", "entropy_N"):
        value = getattr(actual, name)
        assert isinstance(value, OnDevice) and value.dtype == torch.float32
        torch.testing.assert_close(value.raw, getattr(expected, name), atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
def test_more_chunks_do_not_wait_more_often(bias):
    counts = []
    for chunk in (320, 32):
        _, _, cuda = run("jsd", torch.bfloat16, torch.bfloat16, bias, 0.7, torch.bfloat16, [40] * 8, chunk)
        counts.append((sum(cuda.synchronisations.values()), sum(cuda.copies_in.values())))
    assert counts[0] == counts[1]


def test_the_stand_in_sees_mixes_and_waits():
    with CudaStandIn() as cuda:
        on_device = cuda.put(torch.ones(3))
        with pytest.raises(RuntimeError, match="beside one on cuda:0"):
            on_device + torch.ones(3)
        assert on_device.sum().item() == 3
        torch.tensor(1.0, device="cuda")
        on_device[on_device > 0]
    assert sum(cuda.synchronisations.values()) == 3
