"""A weighting from outside the package that reads entropies: tokens of which the model is sure weigh more."""

from dataclasses import dataclass

from verl_twgrpo.algorithm.weightings import WEIGHTINGS, Weighting


@dataclass(frozen=True)
class SureSettings:
    """strength: 0 weighs every token 1."""

    strength: float = 1.0

    def __post_init__(self):
        if not self.strength >= 0:
            raise ValueError(f"strength={self.strength!r}: need a number of 0 or more")


@WEIGHTINGS.register
class Sure(Weighting):
    """w = 1 + strength * exp(-H)."""

    name = "sure"
    Settings = SureSettings
    columns = ("entropy",)

    @property
    def active(self):
        return self.settings.strength > 0

    def weigh(self, group):
        return [1 + self.settings.strength * (-entropy_L).exp() for entropy_L in group.columns["entropy"]]
