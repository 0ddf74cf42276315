"""``verl-twgrpo``: doctor, demo, data, parity, plan, bench, eval, study, report, watch, weigh."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from verl_twgrpo import __version__

# command -> (module with add_arguments(parser) and run(args) -> exit code, what it does); a dict is a group of commands
COMMANDS = {
    "doctor": ("verl_twgrpo.doctor.command", "what loaded, what is missing, what to do"),
    "demo": (
        {
            "prepare": (
                "verl_twgrpo.mini_clevrer.demo.command",
                "make the demo's videos, questions and tiny checkpoint",
            ),
            "train": ("verl_twgrpo.mini_clevrer.demo.train", "train it with TW-GRPO, one line per step"),
            "table": ("verl_twgrpo.mini_clevrer.demo.table", "show a run step by step, from what it logged"),
            "answer": ("verl_twgrpo.mini_clevrer.demo.answer", "ask a trained checkpoint one question, in vLLM"),
        },
        "the demo that runs on two processor cores",
    ),
    "data": ("verl_twgrpo.data.command", "raw annotations -> audited multi-answer parquet that verl reads"),
    "bench": (
        {
            "divergence": ("verl_twgrpo.bench.divergence", "the weights pass against the released code's way"),
            "group": ("verl_twgrpo.bench.group", "the responses of a group behind one prompt, against one prompt each"),
            "step": ("verl_twgrpo.bench.step", "a whole step of a recipe by phase, packed groups against unpacked"),
            "reward": ("verl_twgrpo.bench.reward", "rollouts that the reward scores in a second"),
            "input": ("verl_twgrpo.bench.input", "the video side of a step, stock and on prepared frames"),
        },
        "benchmarks",
    ),
    "eval": ("verl_twgrpo.evaluation.command", "accuracies with intervals, from predictions"),
    "parity": ("verl_twgrpo.parity.command", "whether rollout and actor see one prompt and its video alike"),
    "init": ("verl_twgrpo.planning.own_run", "the YAML of a run on your own data, from what is there; then its plan"),
    "plan": ("verl_twgrpo.planning.command", "what a run will be, and whether it can work"),
    "study": ("verl_twgrpo.mini_clevrer.study.command", "TW-GRPO against GRPO on mini-CLEVRER, from nothing to tables"),
    "report": ("verl_twgrpo.report.command", "a page, figures and tables of runs"),
    "weigh": ("verl_twgrpo.weigh.command", "what other weightings would have made of a run's responses"),
    "watch": ("verl_twgrpo.report.watch", "the page of a run that still trains, kept up to date"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; a bad input ends in one sentence on stderr and exit code 2, an interrupt in 130."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="verl-twgrpo", description="TW-GRPO for verl")
    parser.add_argument("--version", action="version", version=f"verl-twgrpo {__version__}")
    try:
        _add_commands(parser, COMMANDS, words)
        args = parser.parse_args(words)
        return args.run(args) or 0
    except KeyboardInterrupt as interrupt:
        kept = str(interrupt) or "files are written whole or not at all, so none is half there"
        print(f"\nverl-twgrpo: interrupted; {kept}", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"verl-twgrpo: {_sentence(error)}", file=sys.stderr)
        return 2


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _add_commands(parser: argparse.ArgumentParser, commands: dict, words: list[str]) -> None:
    added = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (target, what) in commands.items():
        command = added.add_parser(name, help=what, description=what)
        # Only the command that was asked for is imported: some of them import torch or verl.
        if not words or words[0] != name:
            continue
        if isinstance(target, dict):
            _add_commands(command, target, words[1:])
        else:
            module = import_module(target)
            module.add_arguments(command)
            command.set_defaults(run=module.run)


if __name__ == "__main__":
    sys.exit(main())
