"""A divergence from outside the package: the total variation of the live responses to their mean."""

import torch

from verl_twgrpo.algorithm.divergences import DIVERGENCES, Divergence, live_positions


@DIVERGENCES.register
class TotalVariation(Divergence):
    """sum_i TV(p_i, m) over the live responses, m their mean; 0 where one is left."""

    name = "total_variation"
    needs_mixture = True

    def of_block(self, block):
        mean_PV = block.sum_of_probs_PV.div_(block.k)
        probs_PKV = block.log_probs_PKV().exp_()
        return probs_PKV.sub_(mean_PV[:, None]).abs_().sum((1, 2)) / 2

    def of_rows(self, log_probs_GTV, lengths_G):
        live_GT = live_positions(lengths_G, log_probs_GTV.device)
        probs_GTV = torch.where(live_GT[..., None], log_probs_GTV.exp(), 0.0)
        mean_TV = probs_GTV.sum(0) / live_GT.sum(0)[:, None]
        return ((probs_GTV - mean_TV).abs() * live_GT[..., None]).sum((0, 2)) / 2

    def noise(self, G, V):
        return 1e-3 * G
