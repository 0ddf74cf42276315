"""What cannot work ends on the driver, before Ray starts, with one sentence that names the key."""

from __future__ import annotations

import subprocess
import sys

import pytest
import verl  # noqa: F401 - loads the plugin
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from verl_twgrpo.data.parquet import write_parquet
from verl_twgrpo.data.schema import Item
from verl_twgrpo.training.checks import check_training_config
from verl_twgrpo.training.seeded_rollout import NAME


@pytest.fixture
def good(tmp_path):
    """Overrides of a run that passes: a checkpoint folder, data with a video, tw_grpo."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    video = tmp_path / "a video.mp4"
    video.write_bytes(b"not looked into here")
    item = Item("1", "mini_clevrer", "train", "What?", ("this", "that"), frozenset("A"), str(video))
    data = write_parquet([item], tmp_path / "train.parquet")
    return [
        "algorithm=tw_grpo",
        "actor_rollout_ref.rollout.n=8",
        "trainer.n_gpus_per_node=2",
        "data.train_batch_size=4",
        f"actor_rollout_ref.model.path='{model}'",
        f"data.train_files='{data}'",
        f"data.val_files='{data}'",
    ]


def check(*overrides):
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=list(overrides))
    check_training_config(config)


def test_a_good_configuration_passes(good):
    check(*good)


def test_seeded_rollouts_on_the_cpu_want_whole_prompts(good):
    seeded = f"actor_rollout_ref.rollout.agent.default_agent_loop={NAME}"
    check(*good, seeded)
    whole = "actor_rollout_ref.rollout.enable_chunked_prefill=false"
    check(*good, "trainer.device=cpu", seeded, whole)
    with pytest.raises(ValueError, match=r"default_agent_loop=seeded.*enable_chunked_prefill=False"):
        check(*good, "trainer.device=cpu", seeded)


def test_a_run_without_tw_grpo_is_none_of_our_business():
    check("actor_rollout_ref.rollout.n=1")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("actor_rollout_ref.rollout.n=1", r"actor_rollout_ref\.rollout\.n=1: one response is no group"),
        ("algorithm.adv_estimator=gae", r"algorithm\.adv_estimator=gae: TW-GRPO has no critic"),
        ("critic.enable=True", r"has no critic"),
        ("trainer.use_v1=False", r"trainer\.use_v1=False: .* V1 trainer only"),
        ("trainer.v1.trainer_mode=colocate_async", r"trainer_mode=colocate_async: .* synchronous trainer"),
        ("trainer.v1.trainer_mode=sync", r"trainer_mode=sync: "),
        ("actor_rollout_ref.actor.strategy=megatron", r"actor\.strategy=megatron: supported are fsdp and fsdp2"),
        ("actor_rollout_ref.model.use_fused_kernels=True", r"model\.use_fused_kernels=True"),
        ("actor_rollout_ref.actor.ulysses_sequence_parallel_size=2", r"ulysses_sequence_parallel_size"),
        ("algorithm.rollout_correction.bypass_mode=True", r"bypass_mode=True"),
        ("data.train_batch_size=3", r"data\.train_batch_size=3: 2 data-parallel ranks"),
        ("algorithm.tw_grpo.alpha=-1", r"algorithm\.tw_grpo\.alpha=-1"),
        ("+algorithm.tw_grpo.alhpa=1", r"algorithm\.tw_grpo\.alhpa: there is no such setting; choose from divergence"),
        ("actor_rollout_ref.model.path=/nowhere/at/all", r"model\.path=/nowhere/at/all: no such folder"),
        ("actor_rollout_ref.model.path=null", r"model\.path is not set"),
        ("data.train_files=/no/such.parquet", r"data\.train_files=/no/such\.parquet: no such file"),
        ("data.val_files=null", r"data\.val_files is not set"),
        ("data.video_key=clips", r"column 'clips' is missing"),
        ("data.prompt_key=chat", r"column 'chat' is missing"),
        ("+reward.custom_reward_function.reward_kwargs.mode=hard", r"reward_kwargs\.mode"),
    ],
)
def test_a_bad_one_is_refused_with_the_key(good, override, message):
    good.append("reward.reward_manager.name=multi_answer")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check(*good, override)


def test_a_frame_cache_that_is_not_there_is_named(good, tmp_path):
    frames = ["data.custom_cls.path=pkg://verl_twgrpo.video.dataset", "data.custom_cls.name=CachedFramesDataset"]
    with pytest.raises(FileNotFoundError, match=r"data\.frame_cache=None: no such folder"):
        check(*good, *frames)
    check(*good, *frames, f"+data.frame_cache={tmp_path}")


def test_eq6_needs_its_loss(good):
    with pytest.raises(ValueError, match=r"loss_mode=vanilla: placement eq6"):
        check(*good, "algorithm.tw_grpo.placement=eq6", "actor_rollout_ref.actor.policy_loss.loss_mode=vanilla")


def test_token_level_grpo_needs_no_weights_pass(good):
    good[0] = "algorithm=grpo_token"
    check(*good, "actor_rollout_ref.model.use_fused_kernels=True", "data.train_batch_size=3")
    check(*good, "trainer.v1.trainer_mode=sync")


def test_a_hub_name_is_left_to_the_hub(good):
    check(*good, "actor_rollout_ref.model.path=Qwen/Qwen2.5-VL-7B-Instruct")


def test_a_folder_that_is_no_checkpoint_is_refused(good, tmp_path):
    (tmp_path / "model" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no config\.json in it"):
        check(*good)


def test_a_missing_video_is_named_with_file_and_row(good, tmp_path):
    (tmp_path / "a video.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=r"data\.train_files=.*train\.parquet: row 0: video .*a video\.mp4"):
        check(*good)


def test_rows_without_a_video_are_refused(good, tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "train.parquet"
    table = pq.read_table(path)
    empty = table.set_column(
        table.column_names.index("videos"), "videos", [table["videos"].chunk(0).slice(0, 0).to_pylist() + [[]]]
    )
    pq.write_table(empty, path)
    with pytest.raises(ValueError, match=r"row 0: no video"):
        check(*good)


def test_the_command_ends_with_the_sentence_and_starts_no_ray(good):
    done = subprocess.run(
        [sys.executable, "-m", "verl.trainer.main_ppo", *good, "actor_rollout_ref.rollout.n=1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("verl-twgrpo: actor_rollout_ref.rollout.n=1: one response is no group")
    assert "Traceback" not in done.stderr
    assert "ray init kwargs" not in done.stdout


def test_the_settings_are_one_node():
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=["algorithm=tw_grpo", "algorithm.tw_grpo.alpha=0.25"])
    resolved = OmegaConf.to_container(config.actor_rollout_ref.actor.policy_loss, resolve=True)
    assert resolved["tw_grpo"]["alpha"] == 0.25
