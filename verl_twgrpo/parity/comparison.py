"""Both sides of one prompt, side by side: pure functions from tokens, positions and log-probs to what differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

# Mean difference of log-probs that rounding explains: float32 sums in another order; bfloat16's 8 bits of mantissa.
LOG_PROB_LIMITS = {"float32": 1e-3, "bfloat16": 0.05}
# Probability that the actor may give to tokens that the rollout never samples: training's default limit.
NEVER_SAMPLED_LIMIT = 0.02
# The end of a video may be counted in whole coordinates and by the average rate: this share of its length is allowed.
TIME_TOLERANCE = 0.1


@dataclass
class Side:
    """What one side makes of a prompt and the sampled response.

    prompt_ids: the prompt's P tokens. positions_3T: time, height, width of the prompt's and the response's tokens.
    log_probs: of the response's tokens.
    """

    prompt_ids: list[int]
    positions_3T: torch.Tensor
    log_probs: list[float]


@dataclass
class Film:
    """One video of the prompt.

    grid: its patches along time, height and width. seconds: from the first frame to each temporal patch's first one;
    empty where the metadata do not say it.
    """

    grid: tuple[int, int, int]
    seconds: list[float] = field(default_factory=list)


@dataclass
class Comparison:
    """What was found; the fields of ``as_json`` and the sentences of what differs."""

    prompt_ids_equal: bool
    position_ids_equal: bool
    vision_tokens: int
    time_coordinates: dict[str, list[list[int]]]
    seconds: list[list[float] | None]
    video_seconds: list[list[float]]
    log_prob_diff_max: float
    log_prob_diff_mean: float
    never_sampled: float
    differences: list[str]

    def as_json(self) -> dict[str, Any]:
        """Plain values; ``differences`` is empty if rollout and actor agree."""
        return dict(self.__dict__)


def compare(
    rollout: Side,
    actor: Side,
    films: Sequence[Film],
    *,
    vision_ids: Sequence[int] = (),
    video_id: int | None = None,
    merge: int = 2,
    tokens_per_second: float | None = None,
    dtype: str = "float32",
    never_sampled: float = 0.0,
    decode: Callable[[list[int]], str] = str,
) -> Comparison:
    """Compare both sides of one prompt.

    Args:
        films: the prompt's videos, in order.
        vision_ids: token ids that stand for pixels; video_id: the one of videos.
        merge: patches along a side of a vision token.
        tokens_per_second: time coordinates per second of the model; None if its coordinates do not count seconds.
        dtype: that both sides compute in; it sets how far log-probs may differ.
        never_sampled: probability that the actor gives to tokens that the rollout is kept from sampling.
    """
    differences = _token_differences(rollout.prompt_ids, actor.prompt_ids, decode)
    prompt_ids_equal = not differences
    position_differences = _position_differences(rollout, actor, prompt_ids_equal, decode)
    differences += position_differences
    coordinates = {
        name: time_coordinates(side, films, video_id, merge) for name, side in (("rollout", rollout), ("actor", actor))
    }
    seconds = [_seconds(found, tokens_per_second) for found in coordinates["actor"]]
    differences += _time_differences(coordinates, films, tokens_per_second)
    gaps = [abs(ours - theirs) for ours, theirs in zip(actor.log_probs, rollout.log_probs, strict=True)]
    mean = sum(gaps) / len(gaps) if gaps else 0.0
    if not mean <= LOG_PROB_LIMITS[dtype]:
        worst = max(range(len(gaps)), key=gaps.__getitem__)
        differences.append(
            f"log-probs of the response differ by {mean:.2g} per token (limit {LOG_PROB_LIMITS[dtype]:g}), most at "
            f"token {worst}: rollout {rollout.log_probs[worst]:.4f}, actor {actor.log_probs[worst]:.4f}"
        )
    if never_sampled > NEVER_SAMPLED_LIMIT:
        differences.append(
            f"the actor gives {never_sampled:.1%} of the probability to picture tokens, which the rollout never "
            f"samples (limit {NEVER_SAMPLED_LIMIT:.0%})"
        )
    return Comparison(
        prompt_ids_equal=prompt_ids_equal,
        position_ids_equal=not position_differences,
        vision_tokens=sum(token in vision_ids for token in actor.prompt_ids),
        time_coordinates=coordinates,
        seconds=seconds,
        video_seconds=[[round(second, 3) for second in film.seconds] for film in films],
        log_prob_diff_max=max(gaps, default=0.0),
        log_prob_diff_mean=mean,
        never_sampled=never_sampled,
        differences=differences,
    )


def time_coordinates(side: Side, films: Sequence[Film], video_id: int | None, merge: int) -> list[list[int]]:
    """Time of every temporal patch of every video, from the video's first; fewer where the prompt has fewer tokens."""
    places = [place for place, token in enumerate(side.prompt_ids) if token == video_id]
    found = []
    for film in films:
        frames, height, width = film.grid
        per_grid = height * width // merge**2
        firsts, places = places[: frames * per_grid : per_grid], places[frames * per_grid :]
        times = [int(side.positions_3T[0, place]) for place in firsts]
        found.append([time - times[0] for time in times])
    return found


def frame_seconds(metadata: dict[str, Any] | None, grids: int, temporal_patch: int) -> list[float]:
    """Seconds of each temporal patch's first frame, from the first one, by the frames' numbers and the file's rate."""
    indices, rate = (metadata or {}).get("frames_indices"), (metadata or {}).get("fps")
    if indices is None or not rate:
        return []
    firsts = [float(index) / float(rate) for index in list(indices)[::temporal_patch]]
    return [second - firsts[0] for second in firsts[:grids]]


def _token_differences(rollout: list[int], actor: list[int], decode: Callable[[list[int]], str]) -> list[str]:
    if rollout == actor:
        return []
    place = next(
        (k for k, (ours, theirs) in enumerate(zip(rollout, actor, strict=False)) if ours != theirs),
        min(len(rollout), len(actor)),
    )

    def shown(ids: list[int]) -> str:
        return f"{ids[place]} {decode([ids[place]])!r}" if place < len(ids) else "nothing (the prompt has ended)"

    return [
        f"prompt tokens differ from token {place} on: rollout {shown(rollout)}, actor {shown(actor)} "
        f"({len(rollout)} and {len(actor)} tokens)"
    ]


def _position_differences(rollout: Side, actor: Side, same_tokens: bool, decode: Callable) -> list[str]:
    if rollout.positions_3T.shape != actor.positions_3T.shape:
        return [
            f"positions cannot be compared: {rollout.positions_3T.shape[1]} tokens in the rollout, "
            f"{actor.positions_3T.shape[1]} in the actor"
        ]
    differ_T = (rollout.positions_3T != actor.positions_3T).any(dim=0)
    if not differ_T.any():
        return []
    place = int(differ_T.nonzero()[0])
    token = f" ({decode([actor.prompt_ids[place]])!r})" if same_tokens and place < len(actor.prompt_ids) else ""
    ours, theirs = (tuple(side.positions_3T[:, place].tolist()) for side in (rollout, actor))
    return [
        f"positions (time, height, width) differ at {int(differ_T.sum())} of {len(differ_T)} tokens, first at token "
        f"{place}{token}: rollout {ours}, actor {theirs}"
    ]


def _seconds(coordinates: list[int], tokens_per_second: float | None) -> list[float] | None:
    return [round(time / tokens_per_second, 3) for time in coordinates] if tokens_per_second else None


def _time_differences(
    coordinates: dict[str, list[list[int]]], films: Sequence[Film], tokens_per_second: float | None
) -> list[str]:
    """Videos whose time coordinates do not stand for the seconds at which their frames lie."""
    if not tokens_per_second:
        return []
    found = []
    for name, videos in coordinates.items():
        for number, (times, film) in enumerate(zip(videos, films, strict=True), start=1):
            if not times or not film.seconds:
                continue
            told, true = times[-1] / tokens_per_second, film.seconds[-1]
            if abs(told - true) > 1 / tokens_per_second + TIME_TOLERANCE * true:
                found.append(
                    f"time of video {number} in the {name}: its last frames are {told:.2f} s after the first by their "
                    f"coordinates {_shown(times)}, and {true:.2f} s in the file"
                )
    return found


def _shown(times: list[int]) -> str:
    return " ".join(map(str, times[:16])) + (" ..." if len(times) > 16 else "")
