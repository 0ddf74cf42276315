"""M-RoPE: time, height and width of every token of a prompt, as Qwen2-VL and Qwen2.5-VL were trained to count them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from verl_twgrpo.video.rate import time_coordinates


def prompt_positions(
    input_ids_T: torch.Tensor,
    *,
    video_token: int,
    image_token: int,
    video_grids: Sequence[Sequence[int]] = (),
    image_grids: Sequence[Sequence[int]] = (),
    time_steps: Sequence[float] = (),
    merge: int = 2,
) -> torch.Tensor:
    """Positions as int64 [3, T]: text counts up; what follows a picture goes on behind its largest position.

    Args:
        input_ids_T: the prompt with its response, no padding.
        video_token, image_token: the tokens that stand for pictures, as many as there are merged patches.
        video_grids, image_grids: patches along time, height and width of each video and image, in their order.
        time_steps: of each video, what a temporal grid adds to the time coordinate: seconds per grid * tokens per
            second (Qwen2.5-VL), 1 (Qwen2-VL).
        merge: patches that make one token, along height and width.

    Raises:
        ValueError: if pictures, grids and time steps do not match.
    """
    ids = input_ids_T.tolist()
    if len(time_steps) != len(video_grids):
        raise ValueError(f"{len(video_grids)} videos with {len(time_steps)} time steps: need one for each")
    queues = {
        video_token: iter(list(zip(video_grids, time_steps, strict=True))),
        image_token: iter([(grid, 1.0) for grid in image_grids]),
    }
    parts, place, start = [], 0, 0
    while place < len(ids):
        end = next((k for k in range(place, len(ids)) if ids[k] in queues), len(ids))
        if end > place:
            parts.append(torch.arange(start, start + end - place).expand(3, -1))
            start += end - place
        if end == len(ids):
            break
        found = next(queues[ids[end]], None)
        if found is None:
            raise ValueError(f"token {end} is of a picture, but there is no grid left for it")
        (t, h, w), step = found
        t, h, w = int(t), int(h) // merge, int(w) // merge
        place = end + t * h * w
        if ids[end:place] != [ids[end]] * (t * h * w):
            raise ValueError(f"the picture at token {end} needs {t} * {h} * {w} tokens, and has fewer")
        times_t = torch.tensor(time_coordinates(t, step, 1.0))
        grid = torch.stack(torch.meshgrid(times_t, torch.arange(h), torch.arange(w), indexing="ij"))
        parts.append(grid.reshape(3, -1) + start)
        start = int(parts[-1].max()) + 1
    if any(next(queue, None) is not None for queue in queues.values()):
        raise ValueError("there are more grids than pictures in the prompt")
    return torch.cat(parts, dim=1) if parts else torch.zeros(3, 0, dtype=torch.int64)
