"""Packed groups on two ranks whose groups are of unlike number: as many micro-batches on both, the same gradients."""

from __future__ import annotations

from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("packed_two_ranks.py")


@pytest.mark.slow
def test_two_ranks_take_the_step_of_unpacked_rows(on_two_ranks, checkpoints):
    for done in on_two_ranks(SCRIPT, str(checkpoints["untied"])):
        assert done.returncode == 0, done.stderr[-2000:]
