"""The study's runs: which there are, that they compose, and that a study that was cut off goes on."""

import argparse
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import verl  # noqa: F401 - loads the plugin
from omegaconf import OmegaConf

from verl_twgrpo.mini_clevrer.model.warm_start import WarmStart
from verl_twgrpo.mini_clevrer.study import command
from verl_twgrpo.mini_clevrer.study.arms import ARMS, BLANK_SOURCE, START, Planned, plan
from verl_twgrpo.mini_clevrer.study.prepare import prepare, write_blank
from verl_twgrpo.planning.command import compose_run
from verl_twgrpo.rewards.manager import settings_from_config
from verl_twgrpo.video.cache import FrameCache


def composed(planned):
    return compose_run(["recipe=mini_clevrer", *planned.overrides])


def test_every_arm_has_its_seeds_and_the_first_are_everybodys():
    names = [planned.name for planned in plan(tuple(ARMS), range(1, 11))]
    assert names[0] == START and len(names) == len(set(names))
    for name, arm in ARMS.items():
        assert [seed for seed in range(1, 11) if f"{name}-s{seed}" in names] == list(range(1, arm.seeds + 1))
    # a study that is cut off has whole seeds
    assert {name.rpartition("-s")[0] for name in names[1 : len(ARMS) + 1]} == set(ARMS)


@pytest.mark.slow
def test_the_arms_differ_in_what_they_are_named_for_and_in_nothing_else():
    configs = {planned.name[:-3]: composed(planned) for planned in plan(tuple(ARMS), (1,))[1:]}
    assert settings_from_config(configs["grpo_exact"]).mode == "exact"
    assert {settings_from_config(configs[arm]).mode for arm in ARMS if arm != "grpo_exact"} == {"soft"}
    of = {arm: config.algorithm.tw_grpo for arm, config in configs.items()}
    assert (of["tw_grpo"].divergence, of["tw_grpo"].alpha) == ("jsd", 0.7)
    assert (of["tw_grpo_released"].divergence, of["tw_grpo_live"].divergence) == ("released", "live")
    assert of["grpo_soft"].alpha == of["grpo_exact"].alpha == of["alpha_0"].alpha == 0
    assert "blank" in configs["blind"].data.train_files and "blank" not in configs["tw_grpo"].data.train_files
    baseline = configs["grpo_soft"]
    for arm in ("tw_grpo", "alpha_0"):
        for part in ("data", "reward", "actor_rollout_ref.rollout", "actor_rollout_ref.actor.optim"):
            mine, theirs = (OmegaConf.to_container(OmegaConf.select(c, part)) for c in (configs[arm], baseline))
            assert mine == theirs, f"{arm}: {part}"


@pytest.mark.slow
def test_the_seed_moves_the_order_of_questions_and_the_rollouts():
    config = composed(Planned("tw_grpo-s3", ("algorithm=tw_grpo", "data.seed=3")))
    assert config.data.seed == 3 and config.actor_rollout_ref.rollout.seed == 3


def test_blank_questions_keep_ids_and_truth(tmp_path):
    row = {
        "data_source": "mini_clevrer",
        "videos": [{"video": "seen.mp4", "nframes": 8, "digest": "x"}],
        "reward_model": {"ground_truth": "A,C"},
        "extra_info": {"id": "validation-0-00001"},
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "seen.parquet")
    video = tmp_path / "blank.mp4"
    video.write_bytes(b"nothing to see")
    write_blank(tmp_path / "seen.parquet", tmp_path / "blank.parquet", video)
    (blank,) = pq.read_table(tmp_path / "blank.parquet").to_pylist()
    assert blank["data_source"] == BLANK_SOURCE
    assert blank["videos"][0]["video"] == str(video) and blank["videos"][0]["digest"] != "x"
    assert (blank["extra_info"], blank["reward_model"]) == (row["extra_info"], row["reward_model"])


@pytest.mark.slow
def test_what_the_recipe_reads_is_made_once(tmp_path, capsys):
    untrained = WarmStart(perception_steps=0, plain_steps=0, verdict_steps=0, worlds=1)
    for _ in range(2):
        prepare(tmp_path, {"train": 2, "validation": 1, "seed": 0}, untrained)
    assert capsys.readouterr().out.count("there already") == 3
    config = compose_run(["recipe=mini_clevrer", f"demo_dir={tmp_path}"])
    assert (Path(config.actor_rollout_ref.model.path) / "config.json").is_file()
    cache = FrameCache(config.data.frame_cache, 14)
    seen, blank = (pq.read_table(file).to_pylist() for file in config.data.val_files)
    assert all(video in cache for row in [*seen, *blank] for video in row["videos"])
    frames_TCHW, _ = cache.get(blank[0]["videos"][0])
    assert frames_TCHW.float().std() < 3 < cache.get(seen[0]["videos"][0])[0].float().std()


SCALE = command.Scale(("grpo_soft",), (1,), 1, 1, 1, 1, 1, 1)


def test_a_run_that_is_there_is_not_made_again_and_one_that_failed_is(tmp_path, monkeypatch, capsys):
    codes, started = iter([1, 0]), []

    def run_quietly(words, log, steps, show, environment):
        started.append(words)
        show(f"step 1 of {steps}\nits log: {log}")
        return next(codes)

    monkeypatch.setattr(command, "run_quietly", run_quietly)
    planned = plan(SCALE.arms, SCALE.seeds)[1]
    assert command._make(tmp_path, planned, SCALE, 24) == "grpo_soft-s1"
    _, step, log = capsys.readouterr().out.splitlines()
    assert (step, log.split(": ")[0]) == ("grpo_soft-s1: step 1 of 24", "grpo_soft-s1")
    assert not command._finished(tmp_path, planned, SCALE)
    (tmp_path / "runs" / planned.name / "half").write_text("left by the run that failed")
    assert command._make(tmp_path, planned, SCALE, 24) is None
    assert command._finished(tmp_path, planned, SCALE)
    assert not (tmp_path / "runs" / planned.name / "half").exists()
    assert {"algorithm=grpo_token", "data.seed=1", "recipe=mini_clevrer"} <= set(started[-1])
    record = json.loads((tmp_path / "runs" / planned.name / command.RECORD).read_text())
    assert record["versions"]["verl"]


def test_a_run_made_with_other_settings_is_not_taken_for_this_one(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "run_quietly", lambda *_, **__: 0)
    planned = plan(SCALE.arms, SCALE.seeds)[1]
    command._make(tmp_path, planned, SCALE, 24)
    other = command.Scale(**{**vars(SCALE), "overrides": ("trainer.total_training_steps=2",)})
    with pytest.raises(ValueError, match="total_training_steps=2"):
        command._finished(tmp_path, planned, other)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arms", "grpo_soft,nobody"], "--arms grpo_soft,nobody: no arm nobody; choose from grpo_exact, "),
        (["--seeds", "0"], "--seeds 0: need 1 or more"),
    ],
)
def test_arms_and_seeds_that_are_none_are_refused_before_anything_is_made(tmp_path, words, message):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    with pytest.raises(ValueError, match=message):
        command.run(parser.parse_args(["--out", str(tmp_path / "study"), *words]))
    assert not (tmp_path / "study").exists()


def test_what_is_asked_for_is_run(tmp_path, monkeypatch):
    from verl_twgrpo.mini_clevrer.study import prepare as preparing
    from verl_twgrpo.mini_clevrer.study import results

    made = []
    monkeypatch.setattr(preparing, "prepare", lambda *_: None)
    monkeypatch.setattr(results, "write_results", lambda *_: [])
    monkeypatch.setattr(command, "_make", lambda root, planned, scale, steps: made.append(planned.name))
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args(["--out", str(tmp_path), "--arms", "oracle,alpha_0", "--seeds=2"])) == 0
    assert sorted(made) == ["alpha_0-s1", "oracle-s1", "oracle-s2", START]
