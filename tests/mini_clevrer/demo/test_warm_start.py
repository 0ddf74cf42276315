"""The warm start: what is learnt from, and that it learns."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from verl_twgrpo.mini_clevrer.model.checkpoint import build_model, build_processor
from verl_twgrpo.mini_clevrer.model.sight import teach_sight
from verl_twgrpo.mini_clevrer.model.warm_start import (
    IGNORED,
    PERCEPTION,
    PLAIN,
    VERDICTS,
    Examples,
    WarmStart,
    collate,
    warm_start,
)
from verl_twgrpo.mini_clevrer.world import Difficulty, draw

pytestmark = pytest.mark.slow

PLAN = WarmStart(worlds=6, batch_size=8)
PLACED = r"(\w+) to ([a-f][1-6])"


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture(scope="module")
def worlds():
    return [draw("warm_start", index, 0, Difficulty()).world for index in range(PLAN.worlds)]


def test_every_example_is_in_format_with_a_verdict_on_each_option_that_the_answer_repeats(processor, worlds):
    for stage in (PERCEPTION, PLAIN, VERDICTS):
        examples = Examples(PLAN, worlds, processor, stage, steps=5)
        assert len(examples) == 5 * PLAN.batch_size
        for index in range(len(examples)):
            parts = re.fullmatch(r"<think>(.*)</think><answer>([A-C](?:,[A-C])*)</answer>", examples[index].response)
            found = re.findall(rf"([A-C]): (?:{PLACED} and {PLACED} )?(meet|miss|yes|no)\. ", parts[1])
            verdicts = {letter: verdict for letter, *_, verdict in found}
            assert sorted(verdicts) == ["A", "B", "C"]
            assert parts[2].split(",") == [k for k in "ABC" if verdicts[k] in ("meet", "yes")]
            for letter, first, _, second, *_ in found:
                option = rf"\n{letter} The {first} \w+ collides with the {second} \w+"
                assert not first or re.search(option, examples[index].prompt)


def test_a_verdict_says_where_both_end_and_those_that_meet_end_side_by_side(processor, worlds):
    ends = {"meet": [], "miss": []}
    for example in map(Examples(PLAN, worlds, processor, VERDICTS, 20).__getitem__, range(160)):
        for *placed, verdict in re.findall(rf"{PLACED} and {PLACED} (meet|miss)\. ", example.response):
            (x, y), (u, v) = (("abcdef".index(cell[0]), int(cell[1])) for cell in (placed[1], placed[3]))
            ends[verdict].append(max(abs(x - u), abs(y - v)))
    # 0.24 box widths apart where they meet, at least 0.34 where they miss; a cell is 1/6 wide
    assert max(ends["meet"]) <= 2 <= min(map(float, ends["miss"])) + 1
    assert np.mean(ends["meet"]) + 0.5 < np.mean(ends["miss"])


def test_the_stages_describe_all_objects_then_none_then_some_in_varied_length_and_order(processor, worlds):
    def words(stage):
        return [example.response for example in map(Examples(PLAN, worlds, processor, stage, 5).__getitem__, range(40))]

    assert {text.count(" going ") for text in words(PERCEPTION)} == {4}
    assert {text.count(" going ") for text in words(PLAIN)} == {0} and all("yes." not in text for text in words(PLAIN))
    assert {text.count(" going ") for text in words(VERDICTS)} == set(PLAN.described)
    assert {"".join(re.findall(r"([A-C]): ", text)) for text in words(VERDICTS)} > {"ABC", "CBA"}
    assert len({len(processor.tokenizer(text)["input_ids"]) for text in words(VERDICTS)}) >= 8


def test_both_kinds_of_question_are_asked_with_prompts_of_one_length(processor, worlds):
    examples = [Examples(PLAN, worlds, processor, VERDICTS, 5)[index] for index in range(30)]
    assert {"Without the" in example.prompt for example in examples} == {True, False}
    assert len({len(processor.tokenizer(example.prompt)["input_ids"]) for example in examples}) == 1


def test_descriptions_say_where_the_colour_is_in_the_frames(processor, worlds):
    example = Examples(PLAN, worlds, processor, PERCEPTION, 1)[0]
    places = re.findall(r"(\w+) at (\w)(\d) going [\w-]+ to (\w)(\d)", example.response)
    assert len(places) == 4
    columns = ["abcdef".index(place[1]) for place in places]
    assert columns == sorted(columns)
    shade = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 230)}
    shade |= {"yellow": (240, 220, 50), "purple": (150, 40, 170), "cyan": (60, 220, 230)}
    for colour, *cells in places:
        for frame, column, row in ((0, *cells[:2]), (-1, *cells[2:])):
            rows, across = np.nonzero((example.video[frame] == shade[colour]).all(-1))
            size = example.video.shape[1]
            assert abs((across.mean() + 0.5) / size * 6 - ("abcdef".index(column) + 0.5)) < 0.7
            assert abs((rows.mean() + 0.5) / size * 6 - (int(row) - 0.5)) < 0.7


def test_example_k_is_the_same_however_many_steps_and_differs_by_stage_and_seed(processor, worlds):
    short, long = (Examples(PLAN, worlds, processor, VERDICTS, steps) for steps in (1, 9))
    assert short[3].response == long[3].response and (short[3].video == long[3].video).all()
    others = [
        Examples(PLAN, worlds, processor, PERCEPTION, 1),
        Examples(replace(PLAN, seed=1), worlds, processor, VERDICTS, 1),
    ]
    assert all((other[3].video != short[3].video).any() for other in others)


def test_only_the_response_and_its_end_are_learnt(processor, worlds):
    processor.tokenizer.padding_side = "right"
    examples = [Examples(PLAN, worlds, processor, VERDICTS, 1)[index] for index in range(4)]
    batch = collate(processor)(examples)
    for example, labels in zip(examples, batch["labels"], strict=True):
        assert processor.tokenizer.decode(labels[labels != IGNORED]) == example.response + "<|im_end|>"
    learnt = batch["labels"] != IGNORED
    assert (batch["labels"][learnt] == batch["input_ids"][learnt]).all()


def test_a_few_steps_of_every_stage_lower_the_loss_and_are_reproducible(processor):
    plan = replace(PLAN, perception_steps=10, plain_steps=5, verdict_steps=5, worlds=3)
    results = []
    for _ in range(2):
        model, lines = build_model(processor, seed=0), []
        warm_start(model, processor, plan, report=lines.append)
        results.append((model.lm_head.weight.detach().clone(), lines))
    (first, lines), (second, again) = results
    assert torch.equal(first, second) and lines == again
    losses = [float(line.rsplit(" ", 1)[1]) for line in lines]
    assert losses[-1] < losses[0] - 1
    assert [line.split(":")[0] for line in lines] == ["perception"] * 5 + ["plain"] * 5 + ["verdicts"] * 5


def test_what_the_tower_was_taught_stays_as_it_is(processor):
    plan = replace(PLAN, sight_steps=2, plain_steps=2, worlds=3)
    taught, started = (build_model(processor, seed=0) for _ in range(2))
    worlds = [draw("warm_start", index, plan.seed, plan.difficulty).world for index in range(plan.worlds)]
    teach_sight(taught, processor, worlds, steps=2, seed=plan.seed, report=str)
    lines = []
    warm_start(started, processor, plan, report=lines.append)
    for ours, theirs in zip(started.model.visual.parameters(), taught.model.visual.parameters(), strict=True):
        assert torch.equal(ours, theirs) and ours.requires_grad
    assert lines[0].startswith("sight: ") and lines[-1].startswith("plain: ")
    assert not torch.equal(started.lm_head.weight, taught.lm_head.weight)
