"""vLLM's processes ask this entry point first of all, before anything there imports torchvision."""

from __future__ import annotations

from verl_twgrpo.torchvision_ops import declare_missing_ops


def vllm_platform_plugin() -> None:
    """Entry point of vLLM's platform plugins: declares torchvision's operators, and offers no platform (None)."""
    declare_missing_ops()
