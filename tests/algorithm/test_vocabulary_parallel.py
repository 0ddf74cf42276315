"""A head whose columns lie on two ranks gives what the whole head gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from verl_twgrpo.algorithm.divergences import DIVERGENCES, Divergence
from verl_twgrpo.algorithm.vocabulary_parallel import HeadShard, vocabulary_parallel_divergence

SCRIPT = Path(__file__).with_name("shards_on_two_ranks.py")


@pytest.mark.slow
def test_two_shards_give_the_divergence_log_probs_and_entropies_of_the_whole_head(on_two_ranks):
    for done in on_two_ranks(SCRIPT):
        assert done.returncode == 0, done.stderr[-2000:]


def test_a_divergence_that_is_no_sum_over_columns_is_refused(process_group, monkeypatch):
    class Whole(Divergence):
        name = "whole"

        def of_block(self, block):
            return block.entropy_PK.amax(1)

        def of_rows(self, log_probs_GTV, lengths_G):
            raise NotImplementedError

        def noise(self, G, V):
            return 0.0

    monkeypatch.setattr(DIVERGENCES, "get", lambda name: Whole)
    with pytest.raises(ValueError, match="divergence=whole: it is no ColumnwiseDivergence"):
        vocabulary_parallel_divergence(torch.ones(1, 2), [1], HeadShard(torch.ones(3, 2), 0, 3), kind="whole")
