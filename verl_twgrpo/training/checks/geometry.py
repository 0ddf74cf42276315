"""Batches that ranks, updates and micro-batches share evenly."""

from __future__ import annotations

from omegaconf import DictConfig

from verl_twgrpo.training.batches import batches

from .registry import check


@check(runs="training")
def check_batches(config: DictConfig) -> None:
    batches(config)
