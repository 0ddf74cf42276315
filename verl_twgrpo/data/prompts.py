"""What the model is asked: the prompt texts of the paper, and an item as chat messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_twgrpo.data.schema import LETTERS, MULTIPLE_CHOICE, Item
from verl_twgrpo.data.sources import SOURCES

# Video-R1's words. The released TW-GRPO evaluation (src/eval/eval_general_videor1.py) and Video-R1's own
# (src/eval_bench.py) differ by a full stop after "expressions"; Table 1 was made with the former.
_VIDEO_R1 = (
    "Please think about this question as if you were a human pondering deeply. Engage in an internal dialogue using "
    "expressions such as 'let me think', 'wait', 'Hmm', 'oh, I see', 'let's break it down', etc, or other natural "
    "language thought expressions. It's encouraged to include self-reflection or verification in the reasoning "
    "process. Provide your detailed reasoning between the <think> and </think> tags, and then give your final answer "
    "between the <answer> and </answer> tags. Please provide only the single option letter (e.g., A, B, C, D, etc.) "
    "within the <answer> </answer> tags."
)


@dataclass(frozen=True)
class Prompt:
    """A prompt text: ``layout`` takes {question}, {options} and nothing else; ``option`` takes {letter} and {text}."""

    layout: str
    option: str
    origin: str

    def render(self, item: Item) -> str:
        """The text that follows the video: question, lettered options, instruction."""
        options = "\n".join(
            self.option.format(letter=letter, text=text) for letter, text in zip(LETTERS, item.options, strict=False)
        )
        text = self.layout.format(question=item.question, options=options)
        return text if item.options else text.replace("\n\n", "\n", 1)


PROMPTS = {
    # any number of true options, the reader is not told how many
    "clevrer": Prompt(
        "{question}\n{options} Output the thinking process in <think></think> and the final answer (letters "
        "separated by commas, if multiple) in <answer></answer> tags.",
        "{letter} {text}",
        "paper, Appendix C; the layout of the options as in the released data (data/question_answer_inverse)",
    ),
    "released_mixed": Prompt(
        "{question}\n{options}  Output the thinking process in <think> </think> and final answer (letters separated "
        "by , if multiple) in <answer> </answer> tags.",
        "{letter} {text}",
        "released src/open_r1/grpo.py, question_type=mixed",
    ),
    "released_multiple": Prompt(
        "{question}\n{options}  Output the thinking process in <think> </think> and final answer (select letters "
        "separated by ,) in <answer> </answer> tags.",
        "{letter} {text}",
        "released src/open_r1/grpo.py, question_type=multiple (Table 2)",
    ),
    # exactly one true option
    "released_single": Prompt(
        "{question}\n{options}  Output the thinking process in <think> </think> and final answer (select one letter) "
        "in <answer> </answer> tags.",
        "{letter} {text}",
        "released src/open_r1/grpo.py, question_type=single (Table 2)",
    ),
    "video_r1": Prompt(
        "{question}Options:\n{options}\n " + _VIDEO_R1,
        "{letter}. {text}",
        "paper, Appendix C (the prompt words of Video-R1); text of released src/eval/eval_general_videor1.py",
    ),
    # the zero-shot rows of Table 1: no thinking asked for
    "zeroshot": Prompt(
        "{question}Options:\n{options}\n Answer with the option's letter from the given choices directly.",
        "{letter}. {text}",
        "released src/eval/eval_general_zeroshot.py",
    ),
    "zeroshot_clevrer": Prompt(
        "{question}\n{options} Output the final answer (letters separated by , if multiple) in <answer> </answer> "
        "tags directly. ",
        "{letter} {text}",
        "released src/eval/eval_clevrer_zeroshot.py",
    ),
}

_THINK = "Output the thinking process in <think> </think> and then "
_TASK_PROMPTS = {
    "temporal_grounding": "the start and end time in seconds in <answer> </answer>, as in <answer>3.5 to 12</answer>.",
    "grounded_qa": "the final answer (letters separated by commas, if multiple) in <answer> </answer>, and the times "
    "in seconds at which the video shows it in <glue> </glue>, such as <answer>A</answer><glue>[[3.5, 12]]</glue>.",
    "tracking": "one box [x1, y1, x2, y2] for each frame, as a list in <answer> </answer>, null for none.",
    "spatial_grounding": "the box [x1, y1, x2, y2], or a list of boxes, in <answer> </answer>.",
    "numeric": "the number alone in <answer> </answer>.",
    "regression": "the number alone in <answer> </answer>.",
    "counting": "the number alone, in digits, in <answer> </answer>.",
    "boolean": "yes or no in <answer> </answer>.",
    "ordering": "all items in order, separated by commas, in <answer> </answer>.",
    "ocr": "the text that is read, and nothing else, in <answer> </answer>.",
    "open_ended": "the final answer in <answer> </answer>.",
}
PROMPTS |= {
    name: Prompt("{question}\n{options}\n" + _THINK + rest, "{letter} {text}", "this package, for the task " + name)
    for name, rest in _TASK_PROMPTS.items()
}
OTHER_TASKS = "open_ended"
"""The prompt of a task that has none of its own."""

# its items are made, not converted (verl_twgrpo.mini_clevrer.world), with the prompt of CLEVRER
MADE = "mini_clevrer"

# verl's placeholders of inputs, and control tokens of chat templates
_RESERVED = re.compile(r"<(?:image|video|audio)>|<\|\w+\|>")


def prompt_name(item: Item) -> str:
    """The name of the item's prompt in ``PROMPTS``: that of its task, and of its source for multiple choice.

    After question-answer inversion every item of the file, inverted or not, gets the indefinite-choice prompt:
    Video-R1's asks for a single letter, and two prompts in one file would tell which questions were inverted.
    """
    if item.task != MULTIPLE_CHOICE:
        return item.task if item.task in PROMPTS else OTHER_TASKS
    if "qai" in item.provenance:
        return "clevrer"
    if item.source == MADE:
        return "clevrer"
    if item.source not in SOURCES:
        known = ", ".join([*SOURCES, MADE])
        raise ValueError(f"{item.source}: item {item.id}: no prompt for this source (known: {known})")
    return SOURCES[item.source].prompt


def check_text(item: Item) -> None:
    """Raise ``ValueError`` if question or an option holds what would not be read, or not be written, as text."""
    for name, text in (("question", item.question), *zip(LETTERS, item.options, strict=False)):
        clash = _RESERVED.search(text)
        if clash:
            raise ValueError(
                f"{name}: the text contains {clash.group()}, which would be taken for an input or a control token; "
                "reword it"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:  # half a surrogate pair passes JSON
            raise ValueError(f"{name}: {text[error.start]!a} at {error.start} is no character") from None


def template_turns(messages: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Messages with ``<video>`` or ``<image>`` in their text as the chat templates of transformers take them."""
    turns = []
    for message in messages:
        kind = "image" if "<image>" in message["content"] else "video"
        before, mark, after = message["content"].partition(f"<{kind}>")
        pieces = [{"type": "text", "text": before}, {"type": kind}, {"type": "text", "text": after}]
        used = [piece for piece in pieces if piece.get("text", True)] if mark else pieces[:1]
        turns.append({"role": message["role"], "content": used})
    return turns


def messages(item: Item, prompt: str | None = None) -> list[dict[str, str]]:
    """The chat that verl's RLHFDataset takes: one user turn, the video or image first.

    ``prompt`` names an entry of ``PROMPTS``; by default the one of the item's source. Raises ``ValueError`` if the
    item's text holds a placeholder that verl would replace by a picture or a video.
    """
    try:
        check_text(item)
    except ValueError as error:
        raise ValueError(f"{item.source}: item {item.id}: {error}") from None
    text = PROMPTS[prompt or prompt_name(item)].render(item)
    return [{"role": "user", "content": f"<{'image' if item.image else 'video'}>{text}"}]
