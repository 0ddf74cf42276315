"""Teach the vision tower to see before a word is said: where is each colour, in every frame?

A tiny model that learns to see through the text of answers alone stays blind for a thousand steps: a verdict says one
bit about five moving objects. A linear read-out of the tower's tokens that is told every place in every frame makes it
see in a few minutes on one core. The read-out is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, get_cosine_schedule_with_warmup

from verl_twgrpo.mini_clevrer.world import World
from verl_twgrpo.mini_clevrer.world.physics import COLOURS, DURATION, disguise, simulate
from verl_twgrpo.mini_clevrer.world.render import FRAMES, frames

# presence, x and y
VALUES = 3
# a place counts this much beside presence
PLACE_WEIGHT = 10.0


class Places(Dataset):
    """Frames uint8 [T, H, W, 3] of a world, and float [T, colours, 3]: there or not, and where."""

    def __init__(self, worlds: Sequence[World], count: int, seed: int) -> None:
        self.worlds, self.count, self.seed = worlds, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, index])
        world = disguise(rng, self.worlds[int(rng.integers(len(self.worlds)))])
        return frames(world), places(world)


def places(world: World) -> np.ndarray:
    """Float [FRAMES, colours, 3]: 1, x and y of each colour that is there; x and y are 0 where it is not."""
    motion = simulate(world)
    found: np.ndarray = np.zeros((FRAMES, len(COLOURS), VALUES), dtype=np.float32)
    for frame, time in enumerate(np.linspace(0, DURATION, FRAMES)):
        for body, (x, y) in motion.positions(float(time)).items():
            found[frame, COLOURS.index(world.bodies[body].colour)] = 1, x, y
    return found


class ReadOut(torch.nn.Module):
    """Presence and place of every colour in every frame, linear in the visual tokens of the frame's pair."""

    def __init__(self, tower: torch.nn.Module, tokens: int, width: int, frames_of_token: int) -> None:
        super().__init__()
        self.tower, self.frames_of_token = tower, frames_of_token
        self.linear = torch.nn.Linear(tokens * width, frames_of_token * len(COLOURS) * VALUES)

    def forward(self, pixels_NP: torch.Tensor, grids_V3: torch.Tensor) -> torch.Tensor:
        """Float [V, FRAMES, colours, 3]: a logit, x and y."""
        tokens_MW = self.tower(pixels_NP, grid_thw=grids_V3).pooler_output
        if not isinstance(tokens_MW, torch.Tensor):  # one entry per video
            tokens_MW = torch.cat(list(tokens_MW))
        by_pair = tokens_MW.view(len(grids_V3), FRAMES // self.frames_of_token, -1)
        return self.linear(by_pair).view(len(grids_V3), FRAMES, len(COLOURS), VALUES)


def teach_sight(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    worlds: Sequence[World],
    steps: int,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> float:
    """Train the vision tower of ``model`` in place; returns how far places are off, as a part of the frame."""
    video_processor, tower = processor.video_processor, model.model.visual

    def batch(examples: list[tuple[np.ndarray, np.ndarray]]) -> tuple[torch.Tensor, ...]:
        videos = [torch.from_numpy(video).permute(0, 3, 1, 2).float() for video, _ in examples]
        made = video_processor(videos=videos, do_sample_frames=False, return_tensors="pt")
        told = torch.from_numpy(np.stack([told for _, told in examples]))
        return made["pixel_values_videos"], made["video_grid_thw"], told

    grid = batch([Places(worlds, 1, seed)[0]])[1][0].tolist()
    tokens = grid[1] * grid[2] // video_processor.merge_size**2
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        read_out = ReadOut(tower, tokens, model.config.text_config.hidden_size, video_processor.temporal_patch_size)
    optimizer = torch.optim.AdamW(read_out.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, min(50, steps // 4), steps)
    # one process draws and renders while the other core trains
    loader = DataLoader(Places(worlds, steps * batch_size, seed), batch_size, collate_fn=batch, num_workers=1)
    errors: list[float] = []
    for step, (pixels_NP, grids_V3, told) in enumerate(loader, 1):
        said, there = read_out(pixels_NP, grids_V3), told[..., 0]
        presence = torch.nn.functional.binary_cross_entropy_with_logits(said[..., 0], there)
        error = ((said[..., 1:] - told[..., 1:]).square().sum(-1) * there).sum() / there.sum()
        optimizer.zero_grad()
        (presence + PLACE_WEIGHT * error).backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        errors.append(error.item() ** 0.5)
        if step % max(1, steps // 5) == 0:
            report(f"sight: step {step} of {steps}, places off by {np.mean(errors[-20:]):.3f} of a frame")
    return float(np.mean(errors[-20:]))
