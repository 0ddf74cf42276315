"""The token heat map of one group, as a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from smol_measuring import KINDS, NAMES, Weighted


def heat_map_page(groups: Sequence[Weighted], tokenizer: Any, command: str) -> str:
    """The token heat map, once a reading, of the group of which the fewest rows reach the last position."""
    from verl_twgrpo.report.heatmap import heat_map
    from verl_twgrpo.report.reading import Response, TokenGroup
    from verl_twgrpo.rewards import compute_score

    group = min(groups, key=lambda group: group.live_T[-1])
    pages = []
    for kind in KINDS:
        responses = []
        for row, ids in enumerate(group.sample.responses):
            text = tokenizer.decode(ids, skip_special_tokens=True)
            scores = compute_score("nextgqa", text, group.sample.truth, {"options": list(group.sample.letters)})
            responses.append(
                Response(
                    reward=scores["score"],
                    accuracy=scores["accuracy"],
                    soft_accuracy=scores["soft_accuracy"],
                    format=scores["format"],
                    text=text,
                    tokens=[tokenizer.decode([token]) for token in ids],
                    weight=group.weight[kind][: len(ids)].tolist(),
                    divergence=group.divergence[kind][: len(ids)].tolist(),
                    entropy=group.entropy[row].tolist(),
                    log_prob=group.log_prob[row].tolist(),
                )
            )
        prompt = tokenizer.decode(group.sample.prompt)
        pages.append(TokenGroup(NAMES[kind], 0, group.sample.id, group.sample.truth, prompt, responses))
    return heat_map(pages, command)
