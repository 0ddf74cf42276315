"""``algorithm.tw_grpo``: the settings of token weighting, checked on the driver."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from verl.base_config import BaseConfig
from verl.workers.config import PolicyLossConfig

CHOICES = {
    "divergence": ("jsd", "released", "live"),
    "weight": ("one_plus", "eq5"),
    "placement": ("outside", "eq6"),
    "scope": ("all", "content", "padding", "none"),
}


@dataclass
class TWGRPOConfig(BaseConfig):
    """Settings under ``algorithm.tw_grpo``.

    Args:
        divergence: D_t, "jsd" (Eq. 4), "released" (the released code's) or "live" (over unfinished rows only).
        alpha: strength of the weighting; 0 is token-level GRPO (Eq. 11).
        weight: "one_plus" (1 + alpha * n) or "eq5" (Eq. 5 as printed).
        placement: "outside" (w * min(...), the released code) or "eq6" (Eq. 6 as printed).
        scope: positions that are weighted, Table A2: "all", "content", "padding", "none".
        detach: whether the gradient stops at the weights. Training needs ``true``: the weights are those of pi_old.
        std_eps: added to the standard deviation of a group's rewards (Eq. 1); the released code has 1e-4.
        rows_per_chunk: tokens whose logits exist at one time in the weights pass; null chooses by memory.
        dump_dir: folder for one compact file a step with what the figures need; null writes none.

    Raises:
        ValueError: with the key's name, for a value that is not possible.
    """

    divergence: str = "jsd"
    alpha: float = 0.7
    weight: str = "one_plus"
    placement: str = "outside"
    scope: str = "all"
    detach: bool = True
    std_eps: float = 0.0
    rows_per_chunk: int | None = None
    dump_dir: str | None = None

    @property
    def weighted(self) -> bool:
        """Whether there is anything to weigh: without it, training is token-level GRPO on verl's own path."""
        return self.alpha > 0 and self.scope != "none"

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"algorithm.tw_grpo.{name}={getattr(self, name)!r}: choose one of {', '.join(allowed)}"
                )
        for name in ("alpha", "std_eps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(f"algorithm.tw_grpo.{name}={value!r}: need a number of 0 or more")
        if self.rows_per_chunk is not None and (
            isinstance(self.rows_per_chunk, bool) or not isinstance(self.rows_per_chunk, int) or self.rows_per_chunk < 1
        ):
            raise ValueError(f"algorithm.tw_grpo.rows_per_chunk={self.rows_per_chunk!r}: need null or 1 and more")
        if self.detach is not True:
            raise ValueError(
                f"algorithm.tw_grpo.detach={self.detach!r}: training takes the weights from the old policy, so no "
                "gradient can flow through them; leave it true"
            )


@dataclass
class TWGRPOPolicyLossConfig(PolicyLossConfig):
    """verl's policy-loss settings plus ours, so that the registered loss ``tw_grpo`` sees them."""

    tw_grpo: Any = field(default_factory=TWGRPOConfig)
