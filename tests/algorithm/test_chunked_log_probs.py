"""Log-probs of the head pass in the precision of the model's own."""

from __future__ import annotations

import pytest
import torch

from verl_twgrpo.algorithm import chunked_group_divergence


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_those_of_rounded_logits_and_the_divergence_is_not_touched(temperature):
    generator = torch.Generator().manual_seed(0)
    hidden_NH, head_VH = torch.randn(11, 16, generator=generator), 3 * torch.randn(97, 16, generator=generator)
    targets_N = torch.randint(0, 97, (11,), generator=generator)
    lengths_G = [4, 5, 2]
    settings = {"temperature": temperature, "targets_N": targets_N, "tokens_per_chunk": 4}
    fine = chunked_group_divergence(hidden_NH, lengths_G, head_VH, **settings)
    rounded = chunked_group_divergence(hidden_NH, lengths_G, head_VH, **settings, log_prob_dtype=torch.bfloat16)
    # as verl scales them: in the type of the logits
    logits_NV = (hidden_NH @ head_VH.T).bfloat16() / torch.tensor(temperature).bfloat16()
    expected_N = logits_NV.double().log_softmax(-1).gather(1, targets_N[:, None])[:, 0]
    # a logit on the edge between two bfloat16 numbers may fall to the other side: one place of 16 to 32 is 1/8
    gaps_N = (rounded.log_probs_N.double() - expected_N).abs()
    assert gaps_N.median() < 1e-5
    assert gaps_N.max() < 0.13
    assert (rounded.log_probs_N - fine.log_probs_N).abs().max() > 1e-3
    assert torch.equal(rounded.divergence_T, fine.divergence_T)
    assert torch.equal(rounded.entropy_N, fine.entropy_N)
