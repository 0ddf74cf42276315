"""Pictures of a step for the loggers that take some: weights by position, and one group's tokens by their weight."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.nn.utils.rnn import pad_sequence

from verl_twgrpo.algorithm.weightings import Group

logger = logging.getLogger(__name__)

WEIGHTS, TOKENS = "tw_grpo_media/weights_by_position", "tw_grpo_media/tokens"
COLUMNS = 140
"""Characters in a line of the picture of tokens; a response that needs more lines than LINES is cut."""
LINES = 8
# inches of a monospaced character of 7 points (7 dots at 120 an inch), and of a line
_WIDTH, _HEIGHT = 7 / 120, 0.135


@dataclass(frozen=True)
class Shown:
    """A response as the picture of tokens has it: words above it, its tokens, and a weight for each."""

    title: str
    tokens: Sequence[str]
    weights: Sequence[float]


def pictures(groups: Sequence[Group], shown: Sequence[Shown], step: int) -> dict[str, np.ndarray]:
    """Name -> picture as uint8 [height, width, 3]."""
    return {WEIGHTS: _weights_by_position(groups, step), TOKENS: _tokens(shown, step)}


def log_pictures(tracking: Any, found: Mapping[str, np.ndarray], step: int) -> None:
    """Give pictures to every logger of verl's ``Tracking`` that takes pictures (verl/utils/tracking.py).

    A logger that fails is named once; training goes on.
    """
    for backend, instance in tracking.logger.items():
        send = SENDERS.get(backend)
        if send is None or backend in _failed:
            continue
        try:
            send(instance, found, step)
        except Exception as error:  # whatever a service raises: a picture is not worth a run
            _failed.add(backend)
            said = "algorithm.tw_grpo.media_freq: %s took no pictures (%s); none are sent to it any more"
            logger.warning(said, backend, error)


_failed: set[str] = set()


def _to_tensorboard(adapter: Any, found: Mapping[str, np.ndarray], step: int) -> None:
    for name, picture in found.items():
        adapter.writer.add_image(name, picture, step, dataformats="HWC")
    adapter.writer.flush()


def _to_wandb(wandb: Any, found: Mapping[str, np.ndarray], step: int) -> None:
    """Also swanlab, which has the same two functions."""
    wandb.log({name: wandb.Image(picture) for name, picture in found.items()}, step=step)


def _to_trackio(adapter: Any, found: Mapping[str, np.ndarray], step: int) -> None:
    _to_wandb(adapter.trackio, found, step)


def _to_mlflow(adapter: Any, found: Mapping[str, np.ndarray], step: int) -> None:
    import mlflow

    for name, picture in found.items():
        mlflow.log_image(picture, key=name, step=step)


SENDERS: dict[str, Callable[[Any, Mapping[str, np.ndarray], int], None]] = {
    "tensorboard": _to_tensorboard,
    "wandb": _to_wandb,
    "vemlp_wandb": _to_wandb,
    "swanlab": _to_wandb,
    "trackio": _to_trackio,
    "mlflow": _to_mlflow,
}


def _weights_by_position(groups: Sequence[Group], step: int) -> np.ndarray:
    from matplotlib.figure import Figure

    means = [pad_sequence(group.weights, padding_value=math.nan).nanmean(dim=1) for group in groups]
    field = pad_sequence(means, padding_value=math.nan).numpy()
    figure = Figure(figsize=(8, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(field, origin="lower", aspect="auto", interpolation="nearest", cmap="viridis")
    axes.set(title=f"Weight by position, step {step}", xlabel="group of responses", ylabel="token position")
    figure.colorbar(image, ax=axes, label="token weight")
    return _drawn(figure)


def _tokens(shown: Sequence[Shown], step: int) -> np.ndarray:
    """Every response below its title, a token on a ground that is the warmer the more it weighs beyond 1."""
    from matplotlib.figure import Figure

    scale = max((abs(weight - 1) for one in shown for weight in one.weights), default=0.0) or 1.0
    lines = 0
    places: list[tuple[int, int, str, float | None]] = []
    for one in shown:
        places.append((lines, 0, one.title, None))
        line, column = lines + 1, 0
        for token, weight in zip(one.tokens, one.weights, strict=True):
            text = "".join(letter if letter.isprintable() else "·" for letter in token)[:COLUMNS]
            if column + len(text) > COLUMNS:
                line, column = line + 1, 0
            if line > lines + LINES:
                break
            places.append((line, column, text, (weight - 1) / scale))
            column += len(text)
        lines = min(line, lines + LINES) + 2
    width, height = COLUMNS * _WIDTH + 0.3, max(lines, 1) * _HEIGHT + 0.4
    figure = Figure(figsize=(width, height), dpi=120)
    figure.text(
        0.15 / width, 1 - 0.2 / height, f"Tokens by weight, step {step}", fontsize=9, weight="bold", va="center"
    )
    for line, column, text, depth in places:
        x, y = (0.15 + column * _WIDTH) / width, 1 - (0.45 + line * _HEIGHT) / height
        ground = None
        if depth is not None:
            colour = (0.95, 0.44, 0.11) if depth >= 0 else (0.23, 0.51, 0.96)
            ground = {"facecolor": (*colour, 0.8 * abs(depth)), "edgecolor": "none", "pad": 0.6}
        font: dict[str, Any] = {"fontsize": 7, "family": "monospace", "weight": "bold" if depth is None else "normal"}
        figure.text(x, y, text, va="center", bbox=ground, parse_math=False, **font)
    return _drawn(figure)


def _drawn(figure: Any) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
