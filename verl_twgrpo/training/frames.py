"""The former place of ``verl_twgrpo.video.dataset``: settings that name it keep working."""

from __future__ import annotations

from verl_twgrpo.video.dataset import CachedFramesDataset

__all__ = ["CachedFramesDataset"]
