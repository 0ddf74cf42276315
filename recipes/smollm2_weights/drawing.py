"""The two figures, and the token heat map of one group as a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from verl_twgrpo.algorithm.token_classes import CLASSES

from .measuring import ALPHA, KINDS, NAMES, Weighted
from .sampling import GROUP_SIZE


def draw(out: Path, tables: Mapping[str, list[dict]], groups: Sequence[Weighted], command: str) -> None:
    """weights.png: by position, by live rows, one reading against another. tokens.png: by class of token."""
    from verl_twgrpo.report import style

    colour = dict(zip(KINDS, style.COLOURS, strict=False))
    with style.look():
        figure, (by_position, by_live, against) = style.new_figure(3, 3.5)
        profile = tables["profile"]
        positions = [line["position"] for line in profile]
        share = [line["live_rows"] / GROUP_SIZE for line in profile]
        low = 1.0
        by_position.fill_between(positions, low, [low + ALPHA * s for s in share], color=style.NO_DATA)
        by_position.text(
            0.97, 0.03, "grey: share of live rows", transform=by_position.transAxes, ha="right", fontsize=7
        )
        for kind in KINDS:
            weights = [line[f"weight_{kind}"] for line in profile]
            by_position.plot(positions, weights, color=colour[kind], label=NAMES[kind], linewidth=1.2)
            lines = [line for line in tables["live_rows"] if line["reading"] == kind and line["groups"]]
            means = np.array([line["weight"] for line in lines])
            ends = np.abs(np.array([[line["low"], line["high"]] for line in lines]).T - means)
            by_live.errorbar(
                [line["live_rows"] for line in lines], means, yerr=ends, color=colour[kind], marker="o", markersize=4,
                capsize=2, label=NAMES[kind],
            )  # fmt: skip
        by_position.set_ylim(low - 0.03, low + ALPHA + 0.03)
        by_position.set(title="Weight by position", xlabel="token position", ylabel="mean weight")
        by_live.set(title="Weight by live rows", xlabel="rows that have not ended")
        by_live.invert_xaxis()
        by_live.legend(fontsize=7)
        # every fifth position: more dots hide one another
        points = [(g.weight["jsd"][1::5], g.weight["released"][1::5], g.live_T[1::5]) for g in groups]
        x, y, live = (np.concatenate(column) for column in zip(*points, strict=True))
        dots = against.scatter(x, y, c=live, cmap=style.WEIGHTS_MAP, s=4, linewidths=0, antialiased=False)
        against.set(title="Two readings of a position", xlabel=f"weight, {NAMES['jsd']}", ylabel=NAMES["released"])
        figure.colorbar(dots, ax=against, label="live rows", ticks=range(1, GROUP_SIZE + 1))
        style.save(figure, out / "weights.png", ["SmolLM2-135M-Instruct"], command)

        figure, axes = style.new_figure(len(KINDS), 3.4)
        names = [name for name in CLASSES if any(line["class"] == name for line in tables["classes"])][1:]
        for kind, axis in zip(KINDS, axes, strict=True):
            lines = {line["class"]: line for line in tables["classes"] if line["reading"] == kind}
            for height, name in enumerate(reversed(names)):
                line = lines[name]
                axis.plot([line["low"], line["high"]], [height] * 2, color=colour[kind], linewidth=2)
                axis.plot(line["same_live"], height, "o", color=colour[kind], markersize=5)
            axis.axvline(0, color="#777777", linewidth=0.8)
            shown = [f"{name} ({lines[name]['tokens']})" for name in reversed(names)] if axis is axes[0] else []
            axis.set_yticks(range(len(names)), shown or [""] * len(names), fontsize=8)
            axis.set(title=NAMES[kind])
        figure.suptitle(
            "Weight of a class of tokens less that of positions with as many live rows (tokens in brackets)",
            x=0.01, ha="left", fontsize=9,
        )  # fmt: skip
        style.save(figure, out / "tokens.png", ["SmolLM2-135M-Instruct"], command)


def scored(group: Weighted, tokenizer: Any) -> Iterator[tuple[list[int], str, dict[str, Any]]]:
    """Token ids, text and scores of each response."""
    from verl_twgrpo.rewards import compute_score

    for ids in group.sample.responses:
        text = tokenizer.decode(ids, skip_special_tokens=True)
        yield ids, text, compute_score("nextgqa", text, group.sample.truth, {"options": list(group.sample.letters)})


def heat_map_page(groups: Sequence[Weighted], tokenizer: Any, command: str) -> str:
    """The token heat map, once a reading, of the group of which the fewest rows reach the last position."""
    from verl_twgrpo.report.heatmap import heat_map
    from verl_twgrpo.report.reading import Response, TokenGroup

    group = min(groups, key=lambda group: group.live_T[-1])
    pages = []
    for kind in KINDS:
        responses = []
        for row, (ids, text, scores) in enumerate(scored(group, tokenizer)):
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
