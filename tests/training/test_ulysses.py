"""Ulysses sequence parallelism: two ranks share each row and give what one gives; gloo, a stand-in for flash-attn."""

from __future__ import annotations

from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("ulysses_on_two_ranks.py")


@pytest.mark.slow
def test_log_probs_entropies_divergence_and_extra_passes_are_those_of_one_rank(on_two_ranks, checkpoints):
    for done in on_two_ranks(SCRIPT, str(checkpoints["untied"]), str(checkpoints["tied"])):
        assert done.returncode == 0, done.stderr[-3000:]
