"""The token heat map: one HTML file that needs nothing else, with the responses of a group side by side.

Everything a model wrote is escaped, and the page's policy lets no script run but its own, named by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Sequence
from importlib.resources import files

from verl_twgrpo.rewards import parse_answer, read_truth, soft_reward
from verl_twgrpo.rewards.answers import LETTERS

from .reading import Group, Response, Run, TokenGroup
from .series import spread

# control characters have no business in HTML: their pictures stand for them
_VISIBLE = {code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)} | {0x7F: 0x2421}
STRIP_HEIGHT = 100


def choose_groups(run: Run) -> list[Group]:
    """Of the first, the middle and the last dumped step, the group whose rewards differ most: there the weights act."""
    steps = sorted({group.step for group in run.groups})
    chosen = dict.fromkeys((steps[0], steps[len(steps) // 2], steps[-1])) if steps else {}
    return [
        max((group for group in run.groups if group.step == step), key=lambda group: spread(group.rewards_G))
        for step in chosen
    ]


def heat_map(groups: Sequence[TokenGroup], command: str) -> str:
    """The page for some groups; a control switches between them.

    Shades are relative to the largest distance of a weight from 1 in the file: warm above 1, cold below.
    """
    weights = [weight for group in groups for response in group.responses for weight in response.weight]
    scale = max((abs(weight - 1) for weight in weights if math.isfinite(weight)), default=0.0)
    static = files(__package__) / "static"
    script, style = ((static / name).read_text("utf-8") for name in ("heatmap.js", "heatmap.css"))
    # the template starts a line between the tag and the script, which counts
    digest = base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode()
    several = len({group.run for group in groups}) > 1
    links = "".join(
        f'<a href="#g{number}">{_text(f"{group.run} · " if several else "")}step {group.step}</a>'
        for number, group in enumerate(groups)
    )
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # every value is escaped where it is made; a template that escaped again would show the marks
    pages = Environment(
        loader=PackageLoader(__package__, "static"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return pages.get_template("heatmap.html.j2").render(
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'",
        style=style,
        script=script,
        links=links if len(groups) > 1 else "",
        low=f"{1 - scale if any(weight < 1 for weight in weights) else 1:.2f}",
        high=f"{1 + scale:.2f}",
        sections="".join(_section(number, group, scale) for number, group in enumerate(groups)),
        command=_text(command),
    )


def _section(number: int, group: TokenGroup, scale: float) -> str:
    lengths = [len(response.tokens) for response in group.responses]
    finite = [weight for response in group.responses for weight in response.weight if math.isfinite(weight)]
    facts = [
        *([("run", group.run)] if group.run else []),
        ("step", group.step),
        ("problem", group.id or "no id"),
        ("truth", group.ground_truth),
        ("responses", len(group.responses) // group.compared),
        ("tokens", f"{min(lengths)} to {max(lengths)}"),
        ("weights", f"{min(finite):.2f} to {max(finite):.2f}" if finite else "none"),
    ]
    note = ""
    if finite and min(finite) == max(finite) == 1:
        note = '<p class="note">All weights are 1: this group says nothing about its tokens (a degenerate group).</p>'
    prompt = ""
    if group.prompt:
        prompt = f"<details><summary>Prompt</summary><pre>{_text(group.prompt)}</pre></details>"
    cards = "".join(
        _card(k // group.compared, response, group, min(lengths), scale) for k, response in enumerate(group.responses)
    )
    # a mean over several weightings of the same responses would be nobody's
    strip = _strip(_by_position(group), min(lengths)) if group.compared == 1 else ""
    listed = "".join(f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>" for name, value in facts)
    return f'<section id="g{number}"><dl>{listed}</dl>{note}{prompt}{strip}<div class="cards">{cards}</div></section>\n'


def _card(number: int, response: Response, group: TokenGroup, shortest: int, scale: float) -> str:
    answer = parse_answer(response.text)
    # a truth that cannot be read (another reward, another task) only costs the colour of the answer
    try:
        soft = soft_reward(answer, read_truth(group.ground_truth, LETTERS, "truth"))
        verdict = "right" if soft == 1 else "part" if soft > 0 else "wrong"
    except ValueError:
        verdict = "wrong" if answer is None else "part"
    letters = ", ".join(sorted(answer)) if answer else "no answer"
    parts = [("accuracy", response.accuracy), ("soft", response.soft_accuracy), ("format", response.format)]
    # a task's own scores behind the ones that every task has; "score" is the reward, "acc" verl's name for accuracy
    known = {"accuracy", "soft_accuracy", "format", "score", "acc"}
    parts += [(name, value) for name, value in response.scores.items() if name not in known]
    scores = _text(" · ".join(f"{name} {value:.2g}" for name, value in parts if value is not None))
    label = f'<span class="label">{_text(response.label)}</span>' if response.label else ""
    tokens = "".join(
        _token(*values, tail=position >= shortest, scale=scale)
        for position, values in enumerate(
            zip(
                response.tokens,
                response.weight,
                response.divergence,
                response.entropy,
                response.log_prob,
                strict=True,
            )
        )
    )
    return (
        f'<article><header>{label}<b class="{verdict}">{letters}</b>'
        f'<span class="reward">reward {response.reward:.2f}</span>'
        f'<span class="scores">{scores}</span><span class="count">#{number + 1} · {len(response.tokens)} tokens</span>'
        f'</header><div class="text">{tokens}</div></article>'
    )


def _token(
    token: str, weight: float, divergence: float, entropy: float, log_prob: float, *, tail: bool, scale: float
) -> str:
    shade = (weight - 1) / scale if scale and math.isfinite(weight) else 0.0
    classes = " ".join(name for name, holds in (("cold", shade < 0), ("tail", tail)) if holds)
    attributes = f' class="{classes}"' if classes else ""
    attributes += f' style="--i:{abs(shade):.3g}"' if shade else ""
    values = " ".join(f"{value:.4g}" for value in (weight, divergence, entropy, log_prob))
    # a line break is shown and made; other text is only escaped
    text = _text(token).replace("\n", "<s>↵</s>\n")
    return f'<i{attributes} data-v="{values}">{text}</i>'


def _by_position(group: TokenGroup) -> list[float]:
    """Mean weight of the responses that have a position; where they all have one weight, that weight."""
    means = []
    for position in range(max(len(response.weight) for response in group.responses)):
        weights = [response.weight[position] for response in group.responses if len(response.weight) > position]
        means.append(weights[0] if len(set(weights)) == 1 else math.fsum(weights) / len(weights))
    return means


def _strip(weights: Sequence[float], shortest: int) -> str:
    """The mean weights by position as a step curve, with the padding region shaded."""
    n = len(weights)
    if not n:
        return ""
    finite = [weight for weight in weights if math.isfinite(weight)] or [1.0]
    low, high = min(1.0, *finite), max(finite)
    span = (high - low) or 1.0
    points, previous = [], 0.0
    for position, weight in enumerate(weights):
        if math.isfinite(weight):
            previous = STRIP_HEIGHT * (1 - (weight - low) / span)
        points.append(f"{position},{previous:.1f} {position + 1},{previous:.1f}")
    curve = " ".join(points)
    pad = ""
    if shortest < n:
        pad = f'<rect class="pad" x="{shortest}" y="0" width="{n - shortest}" height="{STRIP_HEIGHT}"/>'
    where = f"padding from position {shortest}" if shortest < n else "no padding: all responses are equally long"
    return (
        f'<figure class="strip"><svg viewBox="0 -4 {n} {STRIP_HEIGHT + 8}" preserveAspectRatio="none" role="img"'
        f' aria-label="token weight by position">{pad}'
        f'<polygon points="0,{STRIP_HEIGHT} {curve} {n},{STRIP_HEIGHT}"/><polyline points="{curve}"/>'
        f'<line class="cursor" x1="-9" x2="-9" y1="-4" y2="{STRIP_HEIGHT + 4}"/></svg>'
        f"<figcaption><span>weight by position, {low:.2f} to {high:.2f}</span><span>{where}</span></figcaption>"
        "</figure>"
    )


def _text(value: object) -> str:
    return html.escape(str(value).translate(_VISIBLE))
