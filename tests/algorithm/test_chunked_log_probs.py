"""Log-probs of the head pass in the precision of the model's own."""

from __future__ import annotations

import torch

from verl_twgrpo.algorithm import chunked_group_divergence


def test_log_probs_are_those_of_rounded_logits_and_the_divergence_is_not_touched():
    generator = torch.Generator().manual_seed(0)
    hidden_NH, head_VH = torch.randn(11, 16, generator=generator), 3 * torch.randn(97, 16, generator=generator)
    targets_N = torch.randint(0, 97, (11,), generator=generator)
    lengths_G = [4, 5, 2]
    fine = chunked_group_divergence(hidden_NH, lengths_G, head_VH, targets_N=targets_N, rows_per_chunk=4)
    rounded = chunked_group_divergence(
        hidden_NH, lengths_G, head_VH, targets_N=targets_N, rows_per_chunk=4, log_prob_dtype=torch.bfloat16
    )
    logits_NV = (hidden_NH @ head_VH.T).bfloat16().double()
    expected_N = logits_NV.log_softmax(-1).gather(1, targets_N[:, None])[:, 0]
    torch.testing.assert_close(rounded.log_probs_N.double(), expected_N, atol=1e-5, rtol=0)
    assert (rounded.log_probs_N - fine.log_probs_N).abs().max() > 1e-3
    assert torch.equal(rounded.divergence_T, fine.divergence_T)
    assert torch.equal(rounded.entropy_N, fine.entropy_N)
