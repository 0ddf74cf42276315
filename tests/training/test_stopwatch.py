"""Time is that of the device."""

from __future__ import annotations

import time

import torch

from verl_twgrpo.training.engines.stopwatch import Stopwatch


def test_on_the_host_stretches_add_up():
    watch = Stopwatch()
    for _ in range(2):
        with watch.running(torch.device("cpu")):
            time.sleep(0.02)
    assert 0.04 <= watch.seconds < 1


def test_on_cuda_events_measure_and_nothing_waits_before_the_sum_is_asked_for(monkeypatch):
    clock, waits = [0.0], []

    class Event:
        """Takes the time when recorded, as a stream would reach it."""

        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            clock[0] += 250.0
            self.at = clock[0]

        def synchronize(self):
            waits.append(self)

        def elapsed_time(self, end):
            return end.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    watch = Stopwatch()
    for _ in range(3):
        with watch.running(torch.device("cuda")):
            pass
    assert waits == []
    assert watch.seconds == watch.seconds == 0.75
    assert len(waits) == 3
