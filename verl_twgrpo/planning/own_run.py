"""``verl-twgrpo init``: the YAML of a run on one's own data, with lengths, batches and folders from what is there."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

# what is not written here is taken from these recipes
BASES = {"gpu": "qwen2_5_vl_7b_clevrer", "cpu": "demo_cpu"}
RESPONSE = {"gpu": 4096, "cpu": 96}
STEP = 64  # prompt lengths are rounded up to a multiple


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is known: data, model, machines."""
    parser.add_argument("--data", required=True, help="parquet file to train on, as `data` writes it")
    parser.add_argument("--validation", help="parquet file to validate on (default: the training file, which is said)")
    parser.add_argument("--model", required=True, help="checkpoint folder or hub name")
    parser.add_argument("--gpus", type=int, required=True, help="GPUs of this node; 0: the processor, for tiny models")
    parser.add_argument("--cache", help="frame cache that `data frames` filled")
    parser.add_argument("--response-length", type=int, help="longest response in tokens (default 4096; processor 96)")
    parser.add_argument("--out", default="runs", help="folder for recipe/NAME.yaml and for what the run writes")
    parser.add_argument("--name", default="own", help="name of the run")
    parser.add_argument("--force", action="store_true", help="overwrite the YAML")


def run(args: argparse.Namespace) -> int:
    """Write the YAML, then plan with it; the exit code is the plan's."""
    from verl_twgrpo.files import ensure_absent, write_text
    from verl_twgrpo.planning import command

    if not re.fullmatch(r"\w[\w.-]*", args.name):
        raise ValueError(f"--name {args.name}: need letters, digits, '.', '-' and '_'")
    if args.gpus < 0:
        raise ValueError(f"--gpus {args.gpus}: need 0 or more")
    path = Path(args.out).resolve() / "recipe" / f"{args.name}.yaml"
    ensure_absent([path], args.force)
    write_text(path, own_yaml(args))
    words = [f"hydra.searchpath=[file://{path.parent.parent}]", f"recipe={args.name}"]
    if not args.validation:
        print("note: no --validation: the run validates on its training questions, which says nothing about others")
    print(f"{path}\nplan:  verl-twgrpo plan '{words[0]}' {words[1]}")
    print(f"train: python -m verl.trainer.main_ppo '{words[0]}' {words[1]}\n")
    return command.run(argparse.Namespace(overrides=words))


def own_yaml(args: argparse.Namespace) -> str:
    """The text of the recipe. Raises ``ValueError`` if the files cannot be trained on by so many GPUs."""
    from verl_twgrpo.data.limits import FrameLimits
    from verl_twgrpo.planning.prompts import prompt_cost

    kind = "gpu" if args.gpus else "cpu"
    validation = args.validation or args.data
    for option, file in (("--data", args.data), ("--validation", validation), ("--cache", args.cache)):
        if file and not Path(file).exists():
            raise FileNotFoundError(f"{option} {file}: no such file or folder")
    model = Path(args.model).resolve() if Path(args.model).is_dir() else None
    costs = [prompt_cost([file], FrameLimits(), 14, model) for file in (args.data, validation)]
    rows = costs[0].rows or 0
    batch = max(1, min(8, rows)) if kind == "cpu" else args.gpus
    if rows < batch:
        raise ValueError(f"--data {args.data}: {rows} rows are less than a batch of {batch}, a prompt per GPU")
    # where no processor counts, a question and its options are taken to have 512 tokens at most
    longest = max(cost.longest or cost.visual + 512 for cost in costs)
    prompt = -(-longest // STEP) * STEP
    response = args.response_length or RESPONSE[kind]
    steps = rows // batch
    often = max(1, steps // 5)
    out = Path(args.out).resolve()
    folders = f"out_dir: {out}" if kind == "gpu" else f"demo_dir: {out / args.name}"
    cache = (
        f"""  custom_cls:
    path: pkg://verl_twgrpo.video.dataset
    name: CachedFramesDataset
  frame_cache: {Path(args.cache).resolve()}
"""
        if args.cache
        else ""
    )
    if kind == "gpu":
        actor = f"  actor:\n    ppo_max_token_len_per_gpu: {max(16384, prompt + response)}\n"
        rollout = ""
        trainer = f"  n_gpus_per_node: {args.gpus}\n"
        rest = ""
    else:
        actor = trainer = ""
        rollout = f"    max_num_batched_tokens: {max(1024, prompt + response)}\n"
        board = out / args.name / "run" / "tensorboard"
        rest = f"\nray_kwargs:\n  ray_init:\n    runtime_env:\n      env_vars:\n        TENSORBOARD_DIR: {board}\n"
    return f"""# @package _global_
# Written by `verl-twgrpo init` from {Path(args.data).name}: {rows} rows, longest prompt about {longest} tokens. What is
# not here is as in recipe={BASES[kind]}, where each value's source stands.
defaults:
  - {BASES[kind]}
  - _self_

{folders}

data:
  train_files: {Path(args.data).resolve()}
  val_files: {Path(validation).resolve()}
  train_max_samples: -1
  val_max_samples: 500
  # {"a prompt per GPU" if kind == "gpu" else "as the demo"}
  train_batch_size: {batch}
  # the longest prompt of both files, rounded up to a multiple of {STEP}
  max_prompt_length: {prompt}
  max_response_length: {response}
{cache}
actor_rollout_ref:
  model:
    path: {model or args.model}
{actor}  rollout:
    max_model_len: {prompt + response}
{rollout}
trainer:
{trainer}  # one pass over the data
  total_training_steps: {steps}
  save_freq: {often}
  test_freq: {often}
  experiment_name: {args.name}
{rest}"""
