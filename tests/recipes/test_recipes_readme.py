"""Every command in recipes/README.md is one that runs, and every figure has the interval that belongs to it."""

from __future__ import annotations

import argparse
import math
import re
import shlex
from importlib import import_module, resources
from pathlib import Path

import pytest
import verl  # noqa: F401 - loads the plugin
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from verl_twgrpo import cli
from verl_twgrpo.planning.command import compose_run
from verl_twgrpo.planning.model import model_sizes
from verl_twgrpo.planning.resources import checkpoint_bytes, training_state_bytes

RELEASED = Path(__file__).resolve().parents[1] / "released"
README = Path(__file__).resolve().parents[2] / "recipes" / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.S)
TABLES = [
    [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
    for block in re.findall(r"(?:^\|.*\|\n)+", TEXT, re.M)
]
# placeholders and shell variables
FILLED = {"$PWD": "/somewhere", "HEAD_IP": "10.0.0.1", "$benchmark": "mmvu/mmvu-validation"}


def lines():
    for block in BLOCKS:
        for line in block.splitlines():
            for name, value in FILLED.items():
                line = line.replace(name, value)
            yield shlex.split(line, comments=True)


def runs():
    """The overrides of every run: of verl's entry point, of run.sh, slurm.sh, and of the table's rows."""
    spans = [cell[1:-1] for table in TABLES for row in table for cell in row if cell.startswith("`qwen2_5")]
    cells = [shlex.split(span) for span in spans]
    for words in [*lines(), *(["recipes/run.sh", *cell] for cell in cells if len(cell) > 1)]:
        for k, word in enumerate(words):
            if word in ("recipes/run.sh", "recipes/slurm.sh"):
                recipe, name, *overrides = words[k + 1 :]
                yield (f"recipe={recipe}", f"trainer.experiment_name={name}", *overrides)
            elif word == "verl.trainer.main_ppo":
                yield tuple(words[k + 1 :])


RUNS = sorted(set(runs()))


def test_the_readme_has_its_runs():
    assert len(RUNS) > 35
    recipes = {override for run in RUNS for override in run if override.startswith("recipe=")}
    packaged = {f.name[:-5] for f in resources.files("verl_twgrpo.config.recipe").iterdir() if f.name.endswith(".yaml")}
    assert recipes == {f"recipe={name}" for name in packaged if not name.startswith("demo")}
    assert packaged == {row[0].strip("`") for row in TABLES[0][2:]}


@pytest.mark.slow
@pytest.mark.parametrize("overrides", RUNS, ids=" ".join)
def test_a_run_composes_and_passes_verls_checks_and_ours(overrides, stand_ins):
    config = stand_ins(compose_run(list(overrides)))
    validate_config(config, need_reference_policy(config), need_critic(config))


def test_no_two_runs_share_a_name_unless_they_are_the_same():
    by_name = {}
    for run in RUNS:
        if "recipe=evaluate" in run:
            continue
        name = [override for override in run if override.startswith("trainer.experiment_name=")]
        placement = ("data_dir=", "out_dir=", "trainer.nnodes=", "data.train_batch_size=")
        rest = {o for o in run if not o.startswith(("trainer.experiment_name=", *placement))}
        if name:
            assert by_name.setdefault(name[0], rest) == rest


def test_our_own_commands_take_their_arguments():
    seen = set()
    for words in lines():
        if words[:1] != ["verl-twgrpo"] or words[1] == "plan":
            continue
        parser = argparse.ArgumentParser(exit_on_error=False)
        import_module(cli.COMMANDS[words[1]][0]).add_arguments(parser)
        parser.parse_args(words[2:])
        seen.add(tuple(words[1:3]) if words[1] == "data" else words[1])
    steps = {("data", name) for name in ("convert", "check", "frames", "split")}
    assert seen == steps | {"report", "eval", "doctor"}


def test_verls_merger_takes_its_arguments():
    from verl.model_merger import base_model_merger

    (words,) = [words for words in lines() if "verl.model_merger" in words]
    source = Path(base_model_merger.__file__).read_text()
    assert all(f'"{word}"' in source for word in words if word.startswith("--"))


def test_every_interval_belongs_to_its_figure():
    checked = 0
    for table in TABLES:
        counts = [re.search(r"n = ([\d,]+)", head) for head in table[0]]
        for row in table[2:]:
            for count, cell in zip(counts, row, strict=True):
                found = re.fullmatch(r"(\d+\.\d) ± (\d\.\d)", cell)
                assert bool(found) == (count is not None and cell != "")
                if found:
                    share, n = float(found[1]) / 100, int(count[1].replace(",", ""))
                    assert float(found[2]) == round(196 * math.sqrt(share * (1 - share) / n), 1), cell
                    checked += 1
    assert checked > 50


def test_figures_are_those_of_the_stored_logs():
    """TW-GRPO's row of Table 1 against what the released evaluation stored."""
    import json

    stored = json.loads((RELEASED / "stored_metrics.json").read_text())
    (table,) = [table for table in TABLES if table[0][0] == "model"]
    row = dict(zip(table[0], table[-1], strict=True))
    benchmarks = {"NExT-GQA": "nextgqa", "TempCompass": "tempcompass", "VideoMME": "videomme"}
    for name, file in (benchmarks | {"MMVU": "mmvu", "MVBench": "mvbench"}).items():
        (log,) = [value for key, value in stored.items() if "alpha17" in key and f"_{file}_" in key]
        (head,) = [head for head in row if head.startswith(name)]
        assert abs(float(row[head].split()[0]) - log["strict_accuracy"]) < 0.051
        assert f"n = {log['total_samples']:,}" in head
    (log,) = [value for key, value in stored.items() if "alpha17" in key and "_clevrer_" in key.split("/")[-1]]
    parts = log["single_choice"], log["multiple_choice"]
    pooled = sum(p["strict_accuracy"] * p["count"] for p in parts) / sum(p["count"] for p in parts)
    assert abs(float(row["CLEVRER (n = 9,238)"].split()[0]) - pooled) < 0.051


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in TABLES[0][2:] if row[-1].endswith("GiB")], ids=lambda row: row[0])
def test_disk_and_host_memory_are_what_the_plan_says(row):
    config = compose_run([f"recipe={row[0].strip('`')}"])
    actor, dtype = config.actor_rollout_ref.actor, config.actor_rollout_ref.actor.fsdp_config.model_dtype
    sizes = model_sizes(config.actor_rollout_ref.model, actor.freeze_vision_tower)
    assert row[-1] == f"{2 * checkpoint_bytes(sizes, dtype, list(actor.checkpoint.save_contents)) / 2**30:.1f} GiB"
    assert row[2] == str(config.trainer.n_gpus_per_node)
    if actor.fsdp_config.offload_policy:
        (sentence,) = re.findall(r"keep parameters and optimizer on\s+the host: .*", TEXT)
        assert f"{sum(training_state_bytes(sizes, dtype).values()) / 2 / 2**30:.1f} GiB" in sentence


@pytest.mark.slow
def test_the_index_names_equations_and_tables_and_keys_that_exist():
    (index,) = [table for table in TABLES if table[0] == ["paper", "setting"]]
    first = " ".join(row[0] for row in index)
    for part in ("Eq. 1,", "Eq. 2,", "Eq. 4,", "Eq. 5,", "Eq. 6 ", "Eq. 7,", "Eq. 11", "Table 1", "Tables 2 and 3, A1"):
        assert part in first
    spans = [span for row in index for span in re.findall(r"`([^`]+)`", row[1])]
    overrides = [span for span in spans if re.fullmatch(r"[a-z0-9_.]+=[\w.\-]+", span)]
    assert len(overrides) >= 17
    compose_run(["recipe=qwen2_5_vl_7b_clevrer", *overrides])
