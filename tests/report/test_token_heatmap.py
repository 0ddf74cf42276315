"""The token heat map: every value is there, the page stands alone, and nothing that a model wrote can act."""

from __future__ import annotations

import base64
import hashlib
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_twgrpo.report.heatmap import choose_groups, heat_map
from verl_twgrpo.report.reading import Response, Run, TokenGroup, read_run, read_token_group

EVIL = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "<!--",
    "]]>",
    "&lt;b&gt;",
    "</style><style>*{display:none}",
    "{policy}{0}",
    "javascript:alert(1)",
    "\x00\x1b[31m",
    "\u202egnp.exe",
)


class Page(HTMLParser):
    """A page as a browser takes it apart: elements with attributes, and the text in tokens."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.tokens, self.texts, self.scripts, self._inside = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        self._inside.append(tag)
        if tag == "i" and "data-v" in attributes:
            self.tokens.append([attributes, ""])
        if tag in ("meta", "rect", "polygon", "polyline", "line"):
            self._inside.pop()

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._inside.pop() == tag

    def handle_data(self, data):
        inside = self._inside[-1] if self._inside else ""
        if inside == "i" and self.tokens:
            self.tokens[-1][1] += data
        elif inside == "script":
            self.scripts.append(data)
        else:
            self.texts.append(data)


def response(tokens, weights=None, text="<answer>A</answer>", reward=1.0, **changes):
    n = len(tokens)
    values = {"accuracy": 1.0, "soft_accuracy": 0.5, "format": 0.0, "divergence": [0.75] * n, "entropy": [0.25] * n}
    values |= {"log_prob": [-0.5] * n, "weight": [1.0 + k / 10 for k in range(n)] if weights is None else weights}
    return Response(reward=reward, text=text, tokens=list(tokens), **(values | changes))


def group(*responses, **changes):
    fields = {"run": "demo", "step": 3, "id": "q1", "ground_truth": "A,C", "prompt": "What happens?"} | changes
    return TokenGroup(responses=list(responses), **fields)


def page(*groups, command="verl-twgrpo report demo --out o"):
    return heat_map(groups, command)


def test_every_token_is_there_with_weight_divergence_entropy_and_log_prob():
    parsed = Page(page(group(response(["The", " cube"], [1.0, 1.7]), response(["So"], [1.0]))))
    assert [text for _, text in parsed.tokens] == ["The", " cube", "So"]
    assert [attributes["data-v"] for attributes, _ in parsed.tokens] == [
        "1 0.75 0.25 -0.5",
        "1.7 0.75 0.25 -0.5",
        "1 0.75 0.25 -0.5",
    ]


def test_tokens_are_shaded_by_their_distance_from_weight_one_warm_above_and_cold_below():
    parsed = Page(page(group(response(list("abcd"), [1.0, 1.35, 1.7, 0.3]))))
    assert [attributes.get("style") for attributes, _ in parsed.tokens] == [None, "--i:0.5", "--i:1", "--i:1"]
    assert [attributes.get("class") for attributes, _ in parsed.tokens] == [None, None, None, "cold"]


def test_tokens_past_the_end_of_the_shortest_response_are_marked():
    parsed = Page(page(group(response(list("ab")), response(list("cdef")))))
    marked = [text for attributes, text in parsed.tokens if "tail" in attributes.get("class", "")]
    assert marked == ["e", "f"]
    rectangle = next(attributes for tag, attributes in parsed.elements if tag == "rect")
    assert (rectangle["x"], rectangle["width"]) == ("2", "2")


def test_reward_and_parsed_answer_stand_on_top_of_each_response():
    text = page(
        group(
            response("a", text="<answer>C,A</answer>", reward=2.0),
            response("b", text="<answer>A</answer>", reward=1.5),
            response("c", text="<answer>B</answer>", reward=1.0),
            response("d", text="A or C", reward=0.25),
        )
    )
    for part in (
        '<b class="right">A, C</b><span class="reward">reward 2.00</span>',
        '<b class="part">A</b><span class="reward">reward 1.50</span>',
        '<b class="wrong">B</b><span class="reward">reward 1.00</span>',
        '<b class="wrong">no answer</b><span class="reward">reward 0.25</span>',
        "accuracy 1 · soft 0.5 · format 0",
    ):
        assert part in text


def test_scores_that_the_dump_does_not_have_are_left_out():
    text = page(group(response("a", accuracy=None, soft_accuracy=None, format=None), ground_truth="no letters"))
    assert '<span class="scores"></span>' in text


@pytest.mark.parametrize("evil", EVIL)
def test_what_a_model_wrote_stays_text(evil):
    harmless = page(group(response(["x", "y"], text="x"), id="x", prompt="x", run="x", ground_truth="x"), command="x")
    text = page(
        group(response([evil, "y"], text=evil), id=evil, prompt=evil, run=evil, ground_truth=evil), command=evil
    )
    parsed, expected = Page(text), Page(harmless)
    assert parsed.elements == expected.elements  # no element and no attribute more than for harmless text
    assert parsed.scripts == expected.scripts
    shown = evil.replace("\x00", "␀").replace("\x1b", "␛")
    assert parsed.tokens[0][1] == shown
    assert parsed.texts.count(shown) == 5  # run, problem, truth, prompt, command


@pytest.mark.slow
@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc"))), min_size=1, max_size=5))
def test_any_token_comes_back_from_the_page_as_it_was(tokens):
    assert [text for _, text in Page(page(group(response(tokens)))).tokens] == tokens


def test_line_breaks_are_made_and_shown():
    text = page(group(response(["a", "\n\n"])))
    assert "<s>↵</s>\n<s>↵</s>\n</i>" in text


def test_the_page_needs_nothing_else_and_lets_no_other_script_run():
    text = page(group(response("ab")))
    parsed = Page(text)
    for _, attributes in parsed.elements:
        assert not attributes.keys() & {"src", "srcset", "data", "action"}
        assert attributes.get("href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    assert "http:" not in text and "https:" not in text and "url(" not in text and "@import" not in text
    policy = next(attributes["content"] for tag, attributes in parsed.elements if "http-equiv" in attributes)
    (script,) = parsed.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'")
    assert "innerHTML" not in script and "insertAdjacentHTML" not in script


def test_the_page_has_colours_for_light_and_for_dark():
    assert "prefers-color-scheme: dark" in page(group(response("ab")))


def test_several_groups_can_be_switched_between():
    parsed = Page(page(group(response("a"), step=1), group(response("b"), step=9)))
    links = [attributes["href"] for tag, attributes in parsed.elements if tag == "a"]
    sections = [attributes["id"] for tag, attributes in parsed.elements if tag == "section"]
    assert links == ["#g0", "#g1"] and sections == ["g0", "g1"]
    assert "step 9" in parsed.texts


def test_a_degenerate_group_is_said_to_be_one():
    text = page(group(response("ab", [1.0, 1.0]), response("a", [1.0])))
    assert "All weights are 1" in text
    assert "All weights are 1" not in page(group(response("ab")))


def test_values_that_are_no_numbers_and_empty_responses_do_not_break_the_page():
    text = page(group(response("ab", [float("nan"), 1.5]), response([])))
    assert [attributes.get("style") for attributes, _ in Page(text).tokens] == [None, "--i:1"]
    assert "<svg" not in page(group(response([])))


def test_the_groups_shown_are_those_whose_rewards_differ_most_early_midway_and_late(full_run):
    run = read_run(full_run, "full")
    assert [(chosen.step, chosen.uid) for chosen in choose_groups(run)] == [(1, "u1"), (2, "u2")]
    run.groups[3].rewards_G[:] = [5.0, 0.0, 0.0]
    assert [chosen.uid for chosen in choose_groups(run)] == ["u1", "v2"]
    assert choose_groups(Run("empty", full_run)) == []


def test_a_group_from_a_dump_is_drawn(full_run):
    run = read_run(full_run, "full")
    parsed = Page(page(read_token_group(run, run.groups[0])))
    assert [text for _, text in parsed.tokens] == [
        f"t{k}{t}" for k, length in enumerate((2, 4, 3)) for t in range(length)
    ]
    shades = [float(attributes["style"].removeprefix("--i:")) for attributes, _ in parsed.tokens[2:6][1:]]
    np.testing.assert_allclose(shades, [0.2 / 0.7, 1, 0.1 / 0.7], rtol=5e-3)
    assert "prompt of u1" in parsed.texts
