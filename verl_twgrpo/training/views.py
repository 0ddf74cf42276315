"""Altered views of a row's videos: other pixels, the same tokens, grid and positions.

A no-gradient log-prob pass over such a view tells how much a response owes to the video (VPPO, arXiv 2510.09285; TAPO;
Video-KTR, arXiv 2601.19686). The pixels are altered as the processor left them, so nothing is decoded again.

Layout (transformers, video_processing_qwen2_vl.py, video_processing_qwen3_vl.py): the rows of ``pixel_values_videos``
[N, P] are one video after the other, and inside a video one temporal patch after the other, S = height * width rows
each. A row is one patch [channels, frames of a temporal patch, patch, patch], flattened: all of a patch's frames are in
it, so that temporal patches can be exchanged as blocks of rows whatever the order of patches within them.

Shapes: T temporal patches, S patches of each, P values of a patch, V videos.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

# The view of an extra pass, carried by KVBatchMeta.extra_info to the workers: its fields, and seed and step.
VIEW_KEY = "tw_grpo_view"

PIXELS, GRIDS = "pixel_values_videos", "video_grid_thw"
GREY, BLACK = 128.0, 0.0


@dataclass(frozen=True)
class View:
    """An altered view.

    Args:
        name: one of ``VIEWS``: "unchanged", "blank" (grey), "patches" (some patches black), "frozen" (every temporal
            patch is the first), "shuffled" (temporal patches permuted), "sparse" (temporal patches held).
        share: part of the patches that "patches" blackens, in [0, 1] (VPPO: 0.5, PAPO: 0.6).
        stride: "sparse" keeps every stride-th temporal patch and shows it until the next (FD-OPSD, arXiv 2609.39021,
            scores 32 frames against 8: 4).

    Raises:
        ValueError: for an unknown name or an impossible share or stride.
    """

    name: str
    share: float = 0.5
    stride: int = 4

    def __post_init__(self) -> None:
        if self.name not in VIEWS:
            raise ValueError(f"video view {self.name!r}: choose one of {', '.join(VIEWS)}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"video view {self.name}: share={self.share!r}: need a number from 0 to 1")
        if not isinstance(self.stride, int) or self.stride < 1:
            raise ValueError(f"video view {self.name}: stride={self.stride!r}: need a whole number of 1 or more")


@dataclass(frozen=True)
class Colours:
    """One patch of a single colour as the processor gives it: float [P] each."""

    grey_P: torch.Tensor
    black_P: torch.Tensor


def colours_of(video_processor: Any) -> Colours:
    """Ask the video processor itself, so that its rescaling and normalisation hold to the last bit."""
    side = video_processor.patch_size * video_processor.merge_size

    def patch(value: float) -> torch.Tensor:
        frames = torch.full((video_processor.temporal_patch_size, 3, side, side), value)
        made = video_processor(videos=[frames], do_resize=False, do_sample_frames=False, return_tensors="pt")
        return made[PIXELS][0]

    return Colours(grey_P=patch(GREY), black_P=patch(BLACK))


def row_seed(seed: int, *names: Any) -> int:
    """Seed of one row's draws: equal for equal ``names`` (a group's id, or that and the response's number)."""
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def altered_inputs(inputs: Mapping[str, Any], view: View, colours: Colours, seed: int) -> Mapping[str, Any]:
    """One row's ``multi_modal_inputs`` under a view; the given mapping itself where the row has no video."""
    if inputs.get(PIXELS) is None:
        return inputs
    return {**inputs, PIXELS: altered_pixels(inputs[PIXELS], inputs[GRIDS], view, colours, seed)}


def altered_pixels(
    pixels_NP: torch.Tensor, grids_V3: torch.Tensor, view: View, colours: Colours, seed: int
) -> torch.Tensor:
    """``pixel_values_videos`` [N, P] of a row's V videos under a view; a new tensor, of the same shape and dtype.

    Args:
        grids_V3: ``video_grid_thw``, patches of each video along time, height and width.
        seed: of what is drawn; the draws are the same on every device.

    Raises:
        ValueError: if the grids do not account for all N patches.
    """
    patches_V = grids_V3.prod(dim=1).tolist()
    if sum(patches_V) != len(pixels_NP):
        raise ValueError(f"{GRIDS}: {patches_V} patches, but {PIXELS} has {len(pixels_NP)}")
    generator = torch.Generator().manual_seed(seed)
    videos = []
    for video_RP, frames in zip(pixels_NP.split(patches_V), grids_V3[:, 0].tolist(), strict=True):
        video_TSP = video_RP.view(frames, -1, video_RP.shape[-1])
        videos.append(VIEWS[view.name](video_TSP, view, colours, generator).flatten(0, 1))
    return torch.cat(videos)


def _unchanged(video_TSP: torch.Tensor, view: View, colours: Colours, generator: torch.Generator) -> torch.Tensor:
    return video_TSP


def _blank(video_TSP: torch.Tensor, view: View, colours: Colours, generator: torch.Generator) -> torch.Tensor:
    return colours.grey_P.to(video_TSP).expand_as(video_TSP)


def _patches(video_TSP: torch.Tensor, view: View, colours: Colours, generator: torch.Generator) -> torch.Tensor:
    black_TS = torch.rand(video_TSP.shape[:2], generator=generator) < view.share
    return torch.where(black_TS[..., None].to(video_TSP.device), colours.black_P.to(video_TSP), video_TSP)


def _frozen(video_TSP: torch.Tensor, view: View, colours: Colours, generator: torch.Generator) -> torch.Tensor:
    return video_TSP[:1].expand_as(video_TSP)


def _shuffled(video_TSP: torch.Tensor, view: View, colours: Colours, generator: torch.Generator) -> torch.Tensor:
    order_T = torch.randperm(len(video_TSP), generator=generator)
    if torch.equal(order_T, torch.arange(len(order_T))):
        order_T = order_T.roll(1)  # two temporal patches in their own order would be no other view
    return video_TSP[order_T.to(video_TSP.device)]


def _sparse(video_TSP: torch.Tensor, view: View, colours: Colours, generator: torch.Generator) -> torch.Tensor:
    held_T = torch.arange(len(video_TSP), device=video_TSP.device) // view.stride * view.stride
    return video_TSP[held_T]


# name -> (video [T, S, P], view, colours, generator) -> video [T, S, P]
VIEWS: dict[str, Callable[[torch.Tensor, View, Colours, torch.Generator], torch.Tensor]] = {
    "unchanged": _unchanged,
    "blank": _blank,
    "patches": _patches,
    "frozen": _frozen,
    "shuffled": _shuffled,
    "sparse": _sparse,
}
