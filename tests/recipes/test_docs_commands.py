"""Every command in README and docs/ takes its arguments; every run among them composes and passes all checks."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest
import verl  # noqa: F401 - loads the plugin

from verl_twgrpo import cli
from verl_twgrpo.planning.command import check_run, compose_run

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TRAINING = "verl.trainer.main_ppo"
# what verl's own algorithm needs beside `algorithm=tw_grpo` in a line that stands for a whole command
ELLIPSIS = ("actor_rollout_ref.rollout.name=vllm", "actor_rollout_ref.rollout.n=8", "data.train_batch_size=8")
ELLIPSIS += ("actor_rollout_ref.actor.ppo_mini_batch_size=8", "actor_rollout_ref.actor.use_dynamic_bsz=True")
ELLIPSIS += ("actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True",)


def commands(page: Path) -> list[list[str]]:
    """The words of the commands in a page's fenced and indented blocks, lines that go on joined."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S) + re.findall(r"\n\n((?:    .*\n)+)", text)
    found = []
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        line = re.sub(r"^(\w+=\S+ )+", "", line.strip())
        if line.startswith(("verl-twgrpo ", "python -m verl.")):
            found.append(shlex.split(line, comments=True))
    return found


COMMANDS = [(page.name, words) for page in PAGES for words in commands(page)]
OURS = [entry for entry in COMMANDS if entry[1][0] == "verl-twgrpo"]


def overrides(words: list[str]) -> tuple[str, ...] | None:
    """Those of a run that is started or planned."""
    if TRAINING in words:
        return tuple(words[words.index(TRAINING) + 1 :])
    return tuple(words[2:]) if words[:2] == ["verl-twgrpo", "plan"] else None


RUNS = sorted({found for _, words in COMMANDS if (found := overrides(words))})


def test_there_are_commands_on_many_pages():
    assert len(OURS) > 25 and len({page for page, _ in COMMANDS}) > 6 and len(RUNS) > 6


@pytest.mark.parametrize(("page", "words"), OURS, ids=lambda part: part if isinstance(part, str) else " ".join(part))
def test_it_takes_these_arguments(page, words):
    parser = argparse.ArgumentParser(prog="verl-twgrpo")
    cli._add_commands(parser, cli.COMMANDS, words[1:])
    parser.parse_args(words[1:])


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS, ids=" ".join)
def test_it_can_be_run(run, stand_ins):
    given = [word for word in run if word != "..."]
    config = stand_ins(compose_run([*given, *(ELLIPSIS if "..." in run else ())]))
    check_run(config)
