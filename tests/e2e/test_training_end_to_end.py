"""verl's whole loop on CPU with TW-GRPO: weights, ranks, failures, resuming, and nothing left behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
import pytest

from verl_twgrpo import cli
from verl_twgrpo.data.parquet import read_rows, write_rows
from verl_twgrpo.run_folder import last_step

if TYPE_CHECKING:
    from conftest import Run

pytestmark = pytest.mark.e2e

CACHED = "skip.rollout_tq.enable=True", "skip.rollout_tq.steps=[1,2]"


def cached(folder: Path) -> list[str]:
    """Store the rollouts of steps 1 and 2, or take those that are stored: verl's own switch for it."""
    return [*CACHED, f"skip.rollout_tq.dump_dir={folder}"]


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("rollouts")


class Lives(NamedTuple):
    """A run that was killed twice: its first and its last life, and what was left when its driver alone was killed."""

    first: Run
    last: Run
    orphans: list[str]
    named: list[int]
    """The step of the last whole checkpoint after each kill."""
    resumed: list[int]
    """The steps at which the second and the last life began."""


@pytest.fixture(scope="module")
def killed(start, rollouts):
    """One rank: all of it is killed in the update of step 2, then its driver in the next checkpoint; then to step 3."""
    settings = ["trainer.total_training_steps=3", "trainer.save_freq=1", *cached(rollouts)]
    first = start(*settings, watch=True)
    named, resumed = [], []
    first.wait_for_part("update", 2)
    # until nobody is left: what a process has just started may not have been on the list
    while left := first.alive():
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        first.process.poll()
    named.append(last_step(first.folder / "checkpoints"))
    second = start(*settings, folder=first.folder, watch=True)
    second.wait_for_part("checkpoint", 2)
    second.process.send_signal(signal.SIGKILL)
    second.process.wait()
    orphans = second.orphans()
    resumed.append(second.first_step())
    named.append(last_step(first.folder / "checkpoints"))
    last = start(*settings, folder=first.folder, watch=True)
    assert last.wait() == 0, last.tail()
    resumed.append(last.first_step())
    return Lives(first, last, orphans, named, resumed)


def by_text(rows: list[dict]) -> dict[tuple, dict]:
    """Rows of a dump by what was asked and answered; equal answers of a group have equal values."""
    return {(row["id"], tuple(row["token_ids"])): row for row in rows}


def test_weights_reach_the_update(killed):
    run = killed.first
    rows = run.dump(1)
    assert len({row["group"] for row in rows}) == 4
    assert len(rows) == 32
    weights = [weight for row in rows for weight in row["weight"]]
    assert min(weights) >= 1.0
    assert 1.1 < max(weights) <= 1.7 + 1e-6
    for row in rows:
        assert len(row["weight"]) == len(row["token_ids"]) == len(row["advantage"]) == len(row["tokens"])
        # one advantage per response, scaled by each token's weight
        bare = [a / w for a, w in zip(row["advantage"], row["weight"], strict=True)]
        assert max(bare) - min(bare) < 1e-5
    metrics = run.metrics(1)
    assert metrics["actor/grad_norm"] > 0
    assert abs(metrics["actor/ppo_kl"]) < 1e-5  # on-policy: every ratio is 1
    for name in (
        "divergence_mean", "weight_mean", "weight_max", "tail_weight_share", "live_fraction", "degenerate_groups",
        "group_reward_std", "groups_without_spread", "accuracy",
    ):  # fmt: skip
        assert f"tw_grpo/{name}" in metrics
    assert metrics["timing_s/tw_grpo_head_pass"] > 0


def test_the_frozen_vision_tower_stays_and_the_rest_moves(killed, demo):
    from safetensors.torch import load_file

    run = killed.last
    trained = run.folder / "checkpoints" / "global_step_3" / "actor" / "huggingface" / "model.safetensors"
    before, after = load_file(demo / "model" / "model.safetensors"), load_file(trained)
    assert before.keys() == after.keys()
    moved = {name for name in before if not before[name].equal(after[name].to(before[name].dtype))}
    assert moved
    assert not {name for name in moved if "visual" in name}
    assert {name for name in before if "visual" not in name and not name.endswith("k_proj.bias")} <= moved


def test_processes_of_a_driver_that_was_killed_notice_it(killed):
    assert killed.orphans == []


def test_a_killed_run_goes_on_behind_its_last_whole_checkpoint_with_the_same_data(killed, demo):
    from omegaconf import OmegaConf
    from verl.trainer.ppo.utils import create_rl_sampler

    from verl_twgrpo.data.parquet import read_parquet

    # the second kill struck while step 2 was written
    assert killed.named in ([1, 1], [1, 2])
    assert killed.resumed == [step + 1 for step in killed.named]
    assert killed.last.logged() == [1, *range(killed.resumed[1], 4)]
    items = read_parquet(demo / "data" / "train.parquet")
    order = list(create_rl_sampler(OmegaConf.create({"shuffle": True, "seed": 1, "sampler": None}), items))
    asked = [[items[k].id for k in order[4 * step : 4 * step + 4]] for step in range(3)]
    seen = [[*dict.fromkeys(row["id"] for row in killed.last.dump(step))] for step in (1, 2, 3)]
    # stored rollouts of a step bear the names of the life that drew them, so that a later one does not know their order
    assert [sorted(ids) for ids in seen] == [sorted(ids) for ids in asked]
    assert (seen[0], seen[2]) == (asked[0], asked[2])


def test_a_normal_end_leaves_no_process_behind(killed):
    assert killed.last.orphans() == []


@pytest.fixture(scope="module")
def two_nodes(start, rollouts, killed, tmp_path_factory):
    """A rank on each of two Ray nodes: the second dies in step 2's update, and the run is started again to step 2."""
    folder = tmp_path_factory.mktemp("two_nodes")
    cluster = [sys.executable, str(Path(__file__).with_name("two_nodes.py"))]
    settings = [
        "trainer.nnodes=2",
        "trainer.total_training_steps=2",
        "trainer.save_freq=1",
        # the other runs pack: a prompt once per group
        "algorithm.packed_groups=false",
        *cached(rollouts),
    ]
    dying = start(*settings, folder=folder, watch=True, through=[*cluster, f"--kill-when={folder}/now"])
    dying.wait_for_part("update", 2)
    (folder / "now").touch()
    code, orphans, log = dying.wait(), dying.orphans(), dying.log
    run = start(*settings, folder=folder, watch=True, through=cluster)
    assert run.wait() == 0, run.tail()
    return run, code, orphans, log


def test_two_nodes_of_unpacked_rows_give_the_weights_advantages_and_gradient_of_one_with_packed(killed, two_nodes):
    packed, unpacked = killed.first.metrics(1), two_nodes[0].metrics(1)
    tokens, tokens_unpacked = packed["packed_groups/tokens"], packed["packed_groups/tokens_unpacked"]
    assert packed["packed_groups/ratio"] == pytest.approx(tokens_unpacked / tokens, rel=1e-3)
    assert packed["packed_groups/ratio"] > 1.5
    assert not any(name.startswith("packed_groups/") for name in unpacked)
    assert unpacked["actor/grad_norm"] == pytest.approx(packed["actor/grad_norm"], rel=1e-3)
    # the second step comes after an update; a life that was killed before its end logged nothing of it
    for step in (1, 2):
        one, two = by_text(killed.last.dump(step)), by_text(two_nodes[0].dump(step))
        assert one.keys() == two.keys()
        for key, row in one.items():
            for name in ("weight", "divergence", "advantage", "log_prob", "entropy"):
                assert two[key][name] == pytest.approx(row[name], abs=2e-4, rel=2e-4), (step, name)


def test_a_run_whose_second_node_dies_says_why_leaves_no_process_and_goes_on(two_nodes):
    run, code, orphans, log = two_nodes
    assert code != 0
    assert orphans == []
    assert run.first_step() == 2
    _, told, last = log.rpartition("The run ended before it was done. What it leaves:")
    assert told and f"checkpoint     {run.folder}/checkpoints/global_step_1" in last
    assert "It goes on from there with:" in last
    assert re.search(r"^Why it ended: \S", last, re.MULTILINE)
    assert run.orphans() == []


@pytest.fixture(scope="module")
def shortened(start, demo, tmp_path_factory):
    """Two ranks, rollouts that fail, and frames from the cache: the video files themselves are empty."""
    folder = tmp_path_factory.mktemp("shortened")
    train = demo / "data" / "train.parquet"
    assert cli.main(["data", "frames", str(train), "--cache", f"{folder}/frames"]) == 0
    (folder / "empty.mp4").touch()
    rows = read_rows(train)
    for row in rows:
        row["videos"][0]["video"] = str(folder / "empty.mp4")
    write_rows(rows, folder / "train.parquet")
    loops = folder / "loops.yaml"
    loops.write_text("- name: short_groups\n  _target_: short_groups.ShortGroups\n")
    run = start(
        "trainer.n_gpus_per_node=2",
        "trainer.total_training_steps=2",
        f"actor_rollout_ref.rollout.agent.agent_loop_config_path={loops}",
        "actor_rollout_ref.rollout.agent.default_agent_loop=short_groups",
        "data.custom_cls.path=pkg://verl_twgrpo.video.dataset",
        "data.custom_cls.name=CachedFramesDataset",
        f"+data.frame_cache={folder}/frames",
        f"data.train_files={folder}/train.parquet",
        f"data.val_files={folder}/train.parquet",
        folder=folder,
        environment={"PYTHONPATH": str(Path(__file__).parent)},
    )
    assert run.wait() == 0, run.tail()
    return run


def test_failed_rollouts_shorten_groups_and_padding_rows_stay_out(shortened):
    rows = shortened.dump(1)
    sizes = {}
    for row in rows:
        assert not row["group"].startswith("pad")
        sizes[row["group"]] = sizes.get(row["group"], 0) + 1
    assert len(sizes) == 4
    assert set(sizes.values()) <= {7, 5}
    metrics = shortened.metrics(1)
    assert metrics["actor/grad_norm"] >= 0  # a number: no NaN got in
    assert metrics["tw_grpo/weight_max"] <= 1.7 + 1e-6


def test_no_rollout_opens_a_video_whose_frames_are_cached(shortened):
    assert "Using dataset class: CachedFramesDataset" in shortened.log
    assert {row["id"] for row in shortened.dump(2)}  # two steps were trained from empty files


def test_the_rollout_follows_the_actor_from_the_start_and_after_an_update(killed, shortened):
    for run, step in ((killed.first, 1), (killed.last, 3), (shortened, 1), (shortened, 2)):
        assert run.metrics(step)["training/rollout_probs_diff_max"] < 5e-3, f"step {step}"


def test_a_checkpoint_becomes_a_hugging_face_model_that_answers_in_vllm(killed, demo, tmp_path):
    from safetensors.torch import load_file

    actor = killed.last.folder / "checkpoints" / "global_step_3" / "actor"
    for command in (
        ["verl.model_merger", "merge", "--backend", "fsdp", f"--local_dir={actor}", f"--target_dir={tmp_path}/merged"],
        [
            "verl_twgrpo.cli",
            "demo",
            "answer",
            f"{tmp_path}/merged",
            str(demo / "data" / "validation.parquet"),
            "--row=3",
        ],
    ):
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    trained = load_file(actor / "huggingface" / "model.safetensors")
    assert merged and all(tensor.equal(trained[name].to(tensor.dtype)) for name, tensor in merged.items())
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith(("answer ", "truth ")))
    row = read_rows(demo / "data" / "validation.parquet")[3]
    assert said["truth"] == row["reward_model"]["ground_truth"]
    assert said["answer"].startswith("<think>")  # as the warm start taught it


def check_last_words(run):
    """Where everything is, and a command that starts this run again, below any traceback."""
    _, told, last = run.log.rpartition("The run ended before it was done. What it leaves:")
    assert told, run.tail()
    assert f"{run.folder}/tw_grpo: nothing yet" in last
    assert "no whole one yet" in last
    assert f"trainer.default_local_dir={run.folder}/checkpoints" in last
    assert "Traceback" not in last


def test_ctrl_c_leaves_no_process_behind_and_says_where_things_are(start):
    run = start("trainer.total_training_steps=1")
    run.wait_for(lambda: len(run.alive()) > 5)
    run.process.send_signal(signal.SIGINT)
    assert run.wait() != 0
    assert run.orphans() == []
    check_last_words(run)


def test_an_exception_leaves_no_process_behind_and_says_where_things_are(start, demo, tmp_path):
    # a checkpoint whose weights cannot be read: fails in a worker, with Ray and TransferQueue up
    model = tmp_path / "model"
    model.mkdir()
    for file in (demo / "model").iterdir():
        (model / file.name).write_bytes(file.read_bytes() if file.suffix != ".safetensors" else b"broken")
    run = start("trainer.total_training_steps=1", f"actor_rollout_ref.model.path={model}")
    assert run.wait() != 0
    assert run.orphans() == []
    check_last_words(run)
    # what a worker could not do, below the summary
    (why,) = re.findall(r"^Why it ended: (.*)", run.log, re.M)
    assert re.search(r"SafetensorError: .*header", why)
