"""Run one prompt through verl's rollout and verl's actor, and compare what they saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

# first: it decides how vLLM is started
from verl_twgrpo.parity.rollout import LocalClient, LocalServer  # isort: skip

import torch
from verl.utils.tokenizer import get_processor_token_id

from verl_twgrpo.parity.actor import ActorLogProbs, ActorRow, LocalWorker, actor_log_probs
from verl_twgrpo.parity.comparison import LOG_PROB_LIMITS, Comparison, Film, Side, compare, frame_seconds
from verl_twgrpo.parity.configuration import compose_configuration


@dataclass
class Seen:
    """One prompt as both sides saw it."""

    model_type: str
    dtype: str
    prompt_tokens: int
    films: list[Film]
    response: str
    response_tokens: int
    comparison: Comparison

    def lines(self) -> Iterator[str]:
        """What was found, for a screen."""
        found = self.comparison
        grids = ", ".join("x".join(map(str, film.grid)) for film in self.films)
        grids = f"; grids (time x height x width, in patches) {grids}" if grids else ""
        vision = f"{found.vision_tokens} of them vision{grids}"
        yield f"tokens     {self.prompt_tokens}, {vision}: {_verdict(found.prompt_ids_equal)}"
        yield f"positions  of prompt and response: {_verdict(found.position_ids_equal)}"
        for number in range(len(self.films)):
            ours, theirs = (found.time_coordinates[side][number] for side in ("actor", "rollout"))
            yield f"video {number + 1}    time coordinates: rollout {_numbers(theirs)}"
            yield f"                             actor   {_numbers(ours)}"
            if (seconds := found.seconds[number]) is not None:
                yield f"           they stand for seconds    {_numbers(seconds)}"
            if found.video_seconds[number]:
                yield f"           frames lie at seconds     {_numbers(found.video_seconds[number])}"
        yield (
            f"log-probs  of {self.response_tokens} sampled tokens: mean difference {found.log_prob_diff_mean:.2g}, "
            f"largest {found.log_prob_diff_max:.2g} (limit of the mean {LOG_PROB_LIMITS[self.dtype]:g})"
        )
        yield f"response   {self.response!r}"
        for difference in found.differences:
            yield f"DIFFERS    {difference}"
        if not found.differences:
            yield "rollout and actor agree"


def look(model: str, row: dict[str, Any], max_tokens: int) -> Seen:
    """One response to ``row`` in vLLM, read again by the actor.

    Args:
        row: of a parquet file: prompt, and videos or images if it has any.
        max_tokens: longest response.

    Raises:
        ValueError: if the prompt and the response are longer than the model's positions.
    """
    config = compose_configuration(model, max_tokens)
    client = LocalClient()
    worker = LocalWorker(config, llm_client=client)
    client.server = server = LocalServer(worker.rollout_config, worker.model_config)
    seen_by_actor = worker.run(row)
    log_probs = actor_log_probs(config, worker.model_config, seen_by_actor)
    return _compared(worker, server, seen_by_actor, log_probs, config.actor_rollout_ref.rollout.dtype)


def _compared(worker: LocalWorker, server: LocalServer, row: ActorRow, log_probs: ActorLogProbs, dtype: str) -> Seen:
    hf_config, processor = worker.model_config.hf_config, worker.processor
    films: list[Film] = []
    vision_ids, video_id, merge, rate = (), None, 1, None
    if processor is not None:
        image_id, video_id = (get_processor_token_id(processor, kind) for kind in ("image", "video"))
        vision_ids = tuple(token for token in (image_id, video_id) if token is not None)
        merge = getattr(processor.image_processor, "merge_size", 1)
        rate = getattr(getattr(hf_config, "vision_config", None), "tokens_per_second", None)
        films = _films(row, getattr(getattr(processor, "video_processor", None), "temporal_patch_size", 2))
    responses = len(row.response_ids)
    comparison = compare(
        Side(server.prompt_ids, rollout_positions(server, responses), row.rollout_log_probs),
        Side(row.prompt_ids, actor_positions(row), log_probs.sampled),
        films,
        vision_ids=vision_ids,
        video_id=video_id,
        merge=merge,
        tokens_per_second=rate,
        dtype=dtype,
        never_sampled=log_probs.never_sampled,
        decode=worker.tokenizer.decode,
    )
    return Seen(
        model_type=hf_config.model_type,
        dtype=dtype,
        prompt_tokens=len(row.prompt_ids),
        films=films,
        response=worker.tokenizer.decode(row.response_ids),
        response_tokens=responses,
        comparison=comparison,
    )


def rollout_positions(server: LocalServer, responses: int) -> torch.Tensor:
    """[3, T] of the prompt's tokens and ``responses`` more, as vLLM counts on: place plus delta."""
    prompt = len(server.prompt_ids)
    if server.positions_3T is None:
        return torch.arange(prompt + responses).expand(3, -1)
    more = torch.arange(prompt, prompt + responses) + server.delta
    return torch.cat([server.positions_3T.long(), more.expand(3, -1)], dim=1)


def actor_positions(row: ActorRow) -> torch.Tensor:
    """[3, T] of prompt and response; a text model's positions stand for all three."""
    return row.positions[1:] if row.positions.dim() == 2 else row.positions.expand(3, -1)


def _films(row: ActorRow, temporal_patch: int) -> list[Film]:
    grids = row.multi_modal_inputs.get("video_grid_thw")
    if grids is None:
        return []
    return [
        Film(tuple(grid), frame_seconds(metadata, grid[0], temporal_patch))
        for grid, (_, metadata) in zip(grids.tolist(), row.videos, strict=True)
    ]


def _verdict(equal: bool) -> str:
    return "equal" if equal else "DIFFERENT"


def _numbers(values: Sequence[float]) -> str:
    shown = " ".join(f"{value:g}" for value in values[:16])
    return shown + (f" ... {values[-1]:g}" if len(values) > 16 else "")
