"""One of two ranks, each with some columns of a head; run by test_vocabulary_parallel.py."""

from __future__ import annotations

import torch
from torch.distributed import get_rank, init_process_group

from verl_twgrpo.algorithm.head_pass import chunked_group_divergence
from verl_twgrpo.algorithm.vocabulary_parallel import HeadShard, vocabulary_parallel_divergence

# vocabulary, rows of rank 0's shard, rows of all shards (above the vocabulary: padding), tokens per chunk
SHAPES = [(1000, 500, 1000, 64), (997, 512, 1024, 7), (300, 300, 600, None)]
LENGTHS = ([9, 4, 7, 9], [5], [3, 0, 6], [1, 1])


def main() -> None:
    torch.set_num_threads(1)
    init_process_group("gloo")
    generator = torch.Generator().manual_seed(0)
    for V, cut, rows, tokens_per_chunk in SHAPES:
        for lengths in LENGTHS:
            N, H = sum(lengths), 32
            hidden_NH = torch.randn(N, H, generator=generator)
            head_VH = torch.randn(rows, H, generator=generator)
            bias_V = torch.randn(rows, generator=generator) if len(lengths) > 1 else None
            targets_N = torch.randint(0, V, (N,), generator=generator)
            mine = slice(0, cut) if get_rank() == 0 else slice(cut, None)
            shard = HeadShard(head_VH[mine], mine.start, V, None if bias_V is None else bias_V[mine])
            for kind in ("jsd", "live", "released"):
                whole = chunked_group_divergence(
                    hidden_NH, lengths, head_VH[:V], None if bias_V is None else bias_V[:V], 0.8, kind, targets_N
                )
                ours = vocabulary_parallel_divergence(hidden_NH, lengths, shard, 0.8, kind, targets_N, tokens_per_chunk)
                for name in ("divergence_T", "log_probs_N", "entropy_N"):
                    expected = getattr(whole, name)
                    torch.testing.assert_close(getattr(ours, name), expected, atol=2e-5, rtol=1e-5)
                assert ours.vocabulary_size == V


if __name__ == "__main__":
    main()
