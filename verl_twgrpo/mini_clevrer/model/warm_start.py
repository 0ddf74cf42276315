"""A short supervised start for the tiny model, with transformers' Trainer: the format first, and some sight.

In stages, as a model that is to answer at once stays blind for long. "Perception" describes all objects before the
verdicts; "plain" (not in the demo, which is short) has verdicts only, all worded alike: there the model learns to see
where objects end; "verdicts" describes few or none, in varied wording. The RL run starts from the last: its responses
differ in length, and the model is unsure enough for groups to have a spread. Half of all questions are counterfactual.

"Moments" is for questions of other tasks (``world/moments.py``), carelessly answered from the start.

The demo has two stages of its own, on the easy questions of ``world/shown.py``: "shown" teaches the model to see and to
answer, "slips" to do both carelessly, so that there is something left to learn for RL.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    PrinterCallback,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from verl_twgrpo.data.prompts import PROMPTS, prompt_name, template_turns
from verl_twgrpo.data.schema import Item
from verl_twgrpo.mini_clevrer.model.checkpoint import TOKENS_PER_SECOND
from verl_twgrpo.mini_clevrer.model.sight import teach_sight
from verl_twgrpo.mini_clevrer.world import Difficulty, World, draw, moments, shown
from verl_twgrpo.mini_clevrer.world.physics import disguise
from verl_twgrpo.mini_clevrer.world.questions import draw_question
from verl_twgrpo.mini_clevrer.world.render import FRAMES, FRAMES_PER_SECOND, frames
from verl_twgrpo.mini_clevrer.world.source import Draw, to_item
from verl_twgrpo.mini_clevrer.world.thoughts import response
from verl_twgrpo.video.positions import prompt_positions
from verl_twgrpo.video.rate import seconds_per_grid

# Labels that count for nothing, as transformers' losses have it.
IGNORED = -100


@dataclass(frozen=True)
class WarmStart:
    """How long and on what; a stage of no steps is left out. ``worlds`` are drawn once and shown from all sides.

    ``terse`` is the share of brief verdicts in the last stage, ``described`` the numbers of objects it chooses from,
    ``verdict_rate`` its learning rate as a part of ``learning_rate``: low, it varies the wording and keeps the sight.
    In "slips" a verdict is wrong with chance ``slips``, and an answer has no tags with chance ``untagged``.
    ``sight_steps`` of the vision tower alone (sight.py) come before all stages, in which it then stays as it is.
    """

    sight_steps: int = 0
    perception_steps: int = 0
    plain_steps: int = 0
    verdict_steps: int = 0
    batch_size: int = 16
    worlds: int = 1000
    learning_rate: float = 2e-3
    verdict_rate: float = 1.0
    terse: float = 0.15
    described: tuple[int, ...] = (0, 0, 0, 1, 2, 4)
    shown_steps: int = 0
    slip_steps: int = 0
    slips: float = 0.3
    untagged: float = 0.2
    seed: int = 0
    difficulty: Difficulty = field(default_factory=Difficulty)

    def stages(self) -> dict[str, int]:
        """Steps of every stage, in the order in which they run."""
        return {
            PERCEPTION: self.perception_steps,
            PLAIN: self.plain_steps,
            VERDICTS: self.verdict_steps,
            SHOWN: self.shown_steps,
            SLIPS: self.slip_steps,
        }


@dataclass(frozen=True)
class MomentsStart(WarmStart):
    """On questions of other tasks alone, whose answers slip and lose their tags as in "slips"."""

    moment_steps: int = 0

    def stages(self) -> dict[str, int]:
        """Steps of every stage, in the order in which they run."""
        return {**super().stages(), MOMENTS: self.moment_steps}


PERCEPTION, PLAIN, VERDICTS, SHOWN, SLIPS = "perception", "plain", "verdicts", "shown", "slips"
MOMENTS = "moments"
# What tells the stages' random numbers apart.
_STREAMS = {PERCEPTION: 0, VERDICTS: 1, PLAIN: 2, SHOWN: 3, SLIPS: 4, MOMENTS: 5}


@dataclass(frozen=True)
class Example:
    """What the model is shown and what it should write: frames uint8 [T, H, W, 3], prompt and response as text."""

    video: np.ndarray
    prompt: str
    response: str


class Examples(Dataset):
    """Examples of one stage: number k depends on the plan, the stage and k only."""

    def __init__(
        self, plan: WarmStart, worlds: list[World], processor: Qwen2_5_VLProcessor, stage: str, steps: int
    ) -> None:
        self.plan, self.worlds, self.processor, self.stage = plan, worlds, processor, stage
        self.count = steps * plan.batch_size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        plan, rng = self.plan, np.random.default_rng([self.plan.seed, _STREAMS[self.stage], index])
        if self.stage in (SHOWN, SLIPS):
            drawn = shown.draw(rng)
            noise = {"slips": plan.slips, "untagged": plan.untagged} if self.stage == SLIPS else {}
            text = shown.response(rng, drawn, **noise)
            return self._example(drawn.world, shown.to_item(drawn, str(index), "warm_start", "not written"), text)
        if self.stage == MOMENTS:
            moment = moments.draw(rng, counting=index % 2 == 1)
            text = moments.response(rng, moment, slips=plan.slips, untagged=plan.untagged)
            return self._example(moment.world, moments.to_item(moment, str(index), "warm_start", "not written"), text)
        while True:
            world = disguise(rng, self.worlds[rng.integers(len(self.worlds))])
            question = draw_question(rng, world, plan.difficulty.options, counterfactual=bool(rng.random() < 0.5))
            if any(question.truth):
                break
        objects = {PERCEPTION: (len(world.bodies),), PLAIN: (0,), VERDICTS: plan.described}[self.stage]
        terse = plan.terse if self.stage == VERDICTS else 0.0
        text = response(rng, world, question, objects=int(rng.choice(objects)), terse=terse)
        return self._example(world, to_item(Draw(world, question, 0), str(index), "warm_start", "not written"), text)

    def _example(self, world: World, item: Item, response: str) -> Example:
        return Example(frames(world), prompt_text(self.processor, PROMPTS[prompt_name(item)].render(item)), response)


def prompt_text(processor: Qwen2_5_VLProcessor, text: str) -> str:
    """A user turn of a video and ``text``, up to where the response begins."""
    turns = template_turns([{"role": "user", "content": "<video>" + text}])
    return processor.apply_chat_template(turns, add_generation_prompt=True)


def model_inputs(processor: Qwen2_5_VLProcessor, texts: list[str], videos: list[np.ndarray]) -> dict[str, Any]:
    """Processor outputs for uint8 [T, H, W, 3] videos, one a text, with the positions that rollout and actor count."""
    timing = {"fps": FRAMES_PER_SECOND, "frames_indices": list(range(FRAMES)), "total_num_frames": FRAMES}
    inputs = processor(
        text=texts,
        videos=[torch.from_numpy(video).permute(0, 3, 1, 2).float() for video in videos],
        video_metadata=[dict(timing) for _ in videos],
        do_sample_frames=False,
        padding=True,
        return_tensors="pt",
    )
    # what the model itself would count positions from
    for name in ("video_metadata", "second_per_grid_ts", "mm_token_type_ids"):
        inputs.pop(name, None)
    step = seconds_per_grid(timing, processor.video_processor.temporal_patch_size) * TOKENS_PER_SECOND
    positions_3NT = torch.ones(3, *inputs["input_ids"].shape, dtype=torch.int64)
    for row, grid in enumerate(inputs["video_grid_thw"].tolist()):
        live_T = inputs["attention_mask"][row].bool()
        positions_3NT[:, row, live_T] = prompt_positions(
            inputs["input_ids"][row, live_T],
            video_token=processor.video_token_id,
            image_token=processor.image_token_id,
            video_grids=[grid],
            time_steps=[step],
            merge=processor.video_processor.merge_size,
        )
    return {**inputs, "position_ids": positions_3NT}


def collate(processor: Qwen2_5_VLProcessor) -> Callable[[list[Example]], dict[str, torch.Tensor]]:
    """A collator of examples, with labels on the response and its end only."""
    start_token = processor.tokenizer("assistant\n")["input_ids"][-1]
    end = processor.tokenizer.eos_token

    def batch(examples: list[Example]) -> dict[str, torch.Tensor]:
        texts = [example.prompt + example.response + end for example in examples]
        inputs = model_inputs(processor, texts, [example.video for example in examples])
        tokens = inputs["input_ids"]
        responding = (tokens == start_token).cumsum(1).bool() & (tokens != start_token)
        inputs["labels"] = tokens.where(responding & inputs["attention_mask"].bool(), torch.tensor(IGNORED))
        return inputs

    return batch


class _Report(TrainerCallback):
    """The loss now and then, through ``report``."""

    def __init__(self, name: str, report: Callable[[str], None]) -> None:
        self.name, self.report = name, report

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if logs and "loss" in logs:
            self.report(f"{self.name}: step {state.global_step} of {state.max_steps}, loss {float(logs['loss']):.2f}")


def warm_start(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    plan: WarmStart,
    report: Callable[[str], None] = print,
) -> None:
    """Train ``model`` in place, on the CPU."""
    worlds = [draw("warm_start", index, plan.seed, plan.difficulty).world for index in range(plan.worlds)]
    tower = model.model.visual
    if plan.sight_steps:
        teach_sight(model, processor, worlds, plan.sight_steps, seed=plan.seed, report=report)
        tower.requires_grad_(False)
    padding_side, processor.tokenizer.padding_side = processor.tokenizer.padding_side, "right"
    with tempfile.TemporaryDirectory() as folder:
        for stage, steps in plan.stages().items():
            if not steps:
                continue
            arguments = TrainingArguments(
                folder,
                max_steps=steps,
                per_device_train_batch_size=plan.batch_size,
                learning_rate=plan.learning_rate * (plan.verdict_rate if stage == VERDICTS else 1.0),
                adam_beta2=0.98,
                weight_decay=0.01,
                max_grad_norm=1.0,
                warmup_steps=min(50, steps // 4),
                lr_scheduler_type="cosine_with_min_lr",
                lr_scheduler_kwargs={"min_lr_rate": 0.05},
                # in order: the examples are random as they are
                train_sampling_strategy="sequential",
                # one process draws and renders while the other core trains
                dataloader_num_workers=1,
                dataloader_prefetch_factor=4,
                remove_unused_columns=False,
                logging_steps=max(1, steps // 5),
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
                seed=plan.seed,
            )
            trainer = Trainer(
                model,
                arguments,
                train_dataset=Examples(plan, worlds, processor, stage, steps),
                data_collator=collate(processor),
                callbacks=[_Report(stage, report)],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
    tower.requires_grad_(True)
    processor.tokenizer.padding_side = padding_side
    model.eval()
