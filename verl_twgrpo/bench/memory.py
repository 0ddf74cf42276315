"""Peak memory of a call."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

MIB = 2**20


def peak_on_gpu(call: Callable[[], object]) -> int:
    """Bytes that torch held at most during the call, above those before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() - before


def peak_on_cpu(call: Callable[[], object]) -> int:
    """Highest resident memory seen during the call, above that before it; looked at every millisecond."""
    import psutil

    process = psutil.Process()
    before = peak = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return max(peak, process.memory_info().rss) - before
