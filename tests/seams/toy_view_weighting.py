"""A weighting from outside the package with an extra pass: tokens that a grey video makes less likely weigh more."""

from verl_twgrpo.algorithm.weightings import WEIGHTINGS, Weighting


@WEIGHTINGS.register
class Seen(Weighting):
    """w = 1 + max(0, log p(y | video) - log p(y | grey video)), at most 2."""

    name = "seen"
    columns = ("old_log_probs",)
    extra_passes = {"log_probs_blank": "blank"}

    def weigh(self, group):
        pairs = zip(group.columns["old_log_probs"], group.columns["log_probs_blank"], strict=True)
        return [1 + (seen_L - blind_L).clamp(0, 1) for seen_L, blind_L in pairs]
