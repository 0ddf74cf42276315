"""What cannot work ends on the driver, before Ray starts, with one sentence that names the key."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache

import pyarrow
import pyarrow.parquet as pq
import pytest
import torch
import verl  # loads the plugin
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from verl_twgrpo.data.parquet import read_rows, write_parquet, write_rows
from verl_twgrpo.data.schema import Item
from verl_twgrpo.planning import command as plan
from verl_twgrpo.training.checks import check_training_config, registry
from verl_twgrpo.training.settings import SEEDED_LOOP
from verl_twgrpo.video.cache import FrameCache

# each composes verl's configuration
pytestmark = pytest.mark.slow

MICRO_BATCHES = [
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1",
]


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
        "actor_rollout_ref.rollout.name=vllm",
        "actor_rollout_ref.rollout.n=8",
        "trainer.n_gpus_per_node=2",
        "data.train_batch_size=4",
        f"actor_rollout_ref.model.path='{model}'",
        f"data.train_files='{data}'",
        f"data.val_files='{data}'",
    ]


@cache
def composed(*selected):
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=list(selected))


def check(*overrides):
    """Check a run; what is no choice of a group is put in behind Hydra, which takes a second for each composition."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    selected = [o.input_line for o in parsed if o.key_or_group in ("algorithm", "recipe")]
    config = composed(*selected[-1:]).copy()
    for override in parsed:
        if override.input_line not in selected:
            OmegaConf.update(config, override.key_or_group, override.value(), force_add=True)
    return check_training_config(config)


def test_a_good_configuration_passes(good):
    check(*good)


def test_seeded_rollouts_on_the_cpu_want_whole_prompts(good):
    seeded = f"actor_rollout_ref.rollout.agent.default_agent_loop={SEEDED_LOOP}"
    check(*good, seeded)
    whole = "actor_rollout_ref.rollout.enable_chunked_prefill=false"
    cpu = ["trainer.device=cpu", "actor_rollout_ref.actor.strategy=fsdp2"]
    check(*good, *cpu, seeded, whole)
    with pytest.raises(ValueError, match=r"default_agent_loop=seeded.*enable_chunked_prefill=False"):
        check(*good, *cpu, seeded)


def test_a_run_without_tw_grpo_is_not_checked():
    check("actor_rollout_ref.rollout.n=1")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("actor_rollout_ref.rollout.n=1", r"actor_rollout_ref\.rollout\.n=1: one response is no group"),
        ("algorithm.adv_estimator=gae", r"algorithm\.adv_estimator=gae: TW-GRPO has no critic"),
        ("critic.enable=True", r"has no critic"),
        ("trainer.use_v1=False", r"trainer\.use_v1=False: .* V1 trainer only"),
        ("trainer.v1.trainer_mode=async", r"trainer_mode=async: .* choose colocate_async or separate_async"),
        ("trainer.v1.trainer_mode=sync", r"trainer_mode=sync: "),
        ("actor_rollout_ref.actor.strategy=megatron", r"actor\.strategy=megatron: supported are fsdp and fsdp2"),
        ("algorithm=t_grpo trainer.v1.trainer_mode=sync", r"temporal_bonus: .*set trainer\.v1\.trainer_mode=tw_grpo"),
        (
            "algorithm=t_grpo actor_rollout_ref.rollout.agent.default_agent_loop=single_turn_agent",
            r"temporal_bonus: .*default_agent_loop=single_turn_agent shuffles no frames; choose shuffling_single_turn",
        ),
        (
            "algorithm=t_grpo algorithm.tw_grpo.temporal_bonus.shuffled=0.1",
            r"temporal_bonus\.shuffled=0\.1: of \d rollouts",
        ),
        ("algorithm=t_grpo algorithm.filter_groups.enable=true", r"temporal_bonus: algorithm\.filter_groups\.enable"),
        (
            "algorithm=sova +reward.custom_reward_function.reward_kwargs.format_weight=0.25",
            r"anchors\.right=1\.5: has to lie below; .* a right response is paid 1\.25 and a wrong one 0\.25 or more",
        ),
        (
            "algorithm=sova algorithm.tw_grpo.anchors.wrong=1",
            r"anchors\.wrong=1: has to lie above; .* a wrong one 1 or more",
        ),
        ("algorithm=sova algorithm.adv_estimator=grpo", r"tw_grpo\.anchors=.*set algorithm\.adv_estimator=tw_grpo"),
        ("algorithm=ema_grpo algorithm.adv_estimator=grpo", r"tw_grpo\.std=task: .*adv_estimator=tw_grpo"),
        ("actor_rollout_ref.rollout.temperature=0", r"rollout\.temperature=0: .* one and the same"),
        ("actor_rollout_ref.actor.clip_ratio_low=-0.1", r"clip_ratio_low=-0\.1: need 0 or more"),
        ("actor_rollout_ref.actor.clip_ratio_high=-0.1", r"clip_ratio_high=-0\.1: need 0 or more"),
        ("actor_rollout_ref.actor.clip_ratio_low=1", r"clip_ratio_low=1: need less than 1"),
        ("actor_rollout_ref.actor.clip_ratio=0.3", r"clip_ratio=0\.3: it has no effect beside clip_ratio_low=0\.2"),
        ("actor_rollout_ref.actor.clip_ratio_c=1", r"clip_ratio_c=1: need more than 1"),
        (
            "actor_rollout_ref.rollout.max_model_len=1023",
            r"max_model_len=1023: smaller than prompt 512 \+ response 512",
        ),
        ("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=3", r"micro_batch_size_per_gpu=3: does not divide"),
        ("trainer.val_only=True trainer.val_before_train=False", r"trainer\.val_only=True: verl heeds it only with"),
        ("algorithm.tw_grpo=null", r"algorithm\.tw_grpo is not set, but trainer\.v1\.trainer_mode=tw_grpo"),
        ("actor_rollout_ref.hybrid_engine=False", r"hybrid_engine=False: "),
        ("+trainer.v1.sync.parameter_sync_step=2", r"trainer\.v1\.sync\.parameter_sync_step=2: "),
        ("+async_training.staleness_threshold=0.1", r"async_training beside algorithm\.tw_grpo: .* fully_async_policy"),
        ("+rollout.nnodes=1", r"rollout beside algorithm\.tw_grpo: .* one_step_off_policy"),
        ("actor_rollout_ref.rollout.name=null", r"rollout\.name=None: supported is vllm"),
        ("actor_rollout_ref.rollout.name=sglang", r"rollout\.name=sglang: supported is vllm"),
        ("algorithm.norm_adv_by_std_in_grpo=False", r"norm_adv_by_std_in_grpo=False: the estimator tw_grpo divides"),
        ("actor_rollout_ref.actor.policy_loss.loss_mode=geo_mean", r"loss_mode=geo_mean: it takes the mean"),
        ("distillation.enabled=True", r"distillation\.enabled=True: "),
        (
            "actor_rollout_ref.model.lora_rank=8 actor_rollout_ref.model.target_modules=[q_proj,lm_head]",
            r"model\.target_modules: it puts an adapter on lm_head",
        ),
        (
            "actor_rollout_ref.model.lora_rank=8 actor_rollout_ref.model.target_modules='.*head'",
            r"model\.target_modules: it puts an adapter on lm_head",
        ),
        (
            "actor_rollout_ref.model.lora_rank=8 trainer.device=cpu actor_rollout_ref.actor.strategy=fsdp2",
            r"model\.lora\.merge=False: vLLM on the CPU takes no adapters",
        ),
        ("trainer.device=cpu", r"actor\.strategy=fsdp: it does not run on the CPU .* fsdp2"),
        (
            "actor_rollout_ref.actor.freeze_vision_tower=True",
            r"freeze_vision_tower=True: strategy fsdp .*use_orig_params=True",
        ),
        (
            "reward.reward_manager.name=multi_answr",
            r"reward\.reward_manager\.name=multi_answr: .*choose from .*multi_a",
        ),
        ("algorithm.rollout_correction.bypass_mode=True", r"bypass_mode=True"),
        ("data.train_batch_size=3", r"data\.train_batch_size=3: 2 data-parallel ranks"),
        ("algorithm.tw_grpo.alpha=-1", r"algorithm\.tw_grpo\.alpha=-1"),
        ("+algorithm.tw_grpo.alhpa=1", r"tw_grpo\.alhpa: .* did you mean algorithm\.tw_grpo\.alpha\? choose from w"),
        ("actor_rollout_ref.model.path=/nowhere/at/all", r"model\.path=/nowhere/at/all: no such folder"),
        ("actor_rollout_ref.model.path=null", r"model\.path is not set"),
        ("data.train_files=/no/such.parquet", r"data\.train_files=/no/such\.parquet: no such file"),
        ("data.val_files=null", r"data\.val_files is not set"),
        ("data.prompt_key=chat", r"column 'chat' is missing"),
        ("+reward.custom_reward_function.reward_kwargs.mode=hard", r"reward_kwargs\.mode"),
    ],
)
def test_a_bad_one_is_refused_with_the_key(good, override, message):
    good.append("reward.reward_manager.name=multi_answer")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as refused:
        check(*good, *shlex.split(override))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "override",
    [
        "actor_rollout_ref.model.lora_rank=8",
        "actor_rollout_ref.model.lora_rank=8 actor_rollout_ref.model.target_modules=[q_proj,head_proj]",
        "actor_rollout_ref.model.lora_rank=8 actor_rollout_ref.actor.freeze_vision_tower=True",
        "actor_rollout_ref.actor.freeze_vision_tower=True actor_rollout_ref.actor.fsdp_config.use_orig_params=True",
        "actor_rollout_ref.actor.freeze_vision_tower=True actor_rollout_ref.actor.strategy=fsdp2",
        "algorithm.norm_adv_by_std_in_grpo=False algorithm.adv_estimator=grpo",
        "algorithm=grpo_token actor_rollout_ref.actor.policy_loss.loss_mode=geo_mean",
        "actor_rollout_ref.rollout.max_model_len=1024",
        "trainer.device=cpu actor_rollout_ref.actor.strategy=fsdp2 actor_rollout_ref.model.lora_rank=8 "
        "actor_rollout_ref.model.lora.merge=True",
        "trainer.val_only=True trainer.val_before_train=True actor_rollout_ref.rollout.temperature=0",
    ],
)
def test_what_can_work_passes(good, override):
    assert check(*good, *shlex.split(override)) == []


SEPARATE = [
    "trainer.v1.trainer_mode=separate_async",
    "trainer.v1.separate_async.parameter_sync_step=2",
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    "actor_rollout_ref.rollout.nnodes=1",
    "actor_rollout_ref.rollout.n_gpus_per_node=1",
    "actor_rollout_ref.rollout.checkpoint_engine.backend=nccl",
]


def test_verls_asynchronous_trainers_are_taken(good):
    check(*good, "trainer.v1.trainer_mode=colocate_async", "algorithm.packed_groups=true")
    check(*good, *SEPARATE, "algorithm.packed_groups=true")
    check(*good, "trainer.v1.trainer_mode=colocate_async", "algorithm=grpo_token")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.train_batch_size=6",
            r"train_batch_size=6: .*sync_step=2 times .*ppo_mini_batch_size=2; set it to 4$",
        ),
        ("actor_rollout_ref.rollout.nnodes=0", r"rollout\.nnodes=0: separate_async rolls out on GPUs of its own"),
        ("actor_rollout_ref.rollout.n_gpus_per_node=0", r"rollout\.n_gpus_per_node=0: "),
        ("actor_rollout_ref.rollout.checkpoint_engine.backend=naive", r"checkpoint_engine\.backend=naive: "),
        ("actor_rollout_ref.hybrid_engine=False", r"hybrid_engine=False: verl 0\.9\.1 fails there"),
        # four prompts per step, but a batch is an update's
        ("trainer.n_gpus_per_node=4", r"ppo_mini_batch_size=2: 4 data-parallel ranks .* whole groups"),
    ],
)
def test_what_verls_separate_trainer_would_find_in_a_worker_is_said_before(good, override, message):
    with pytest.raises(ValueError, match=message):
        check(*good, *SEPARATE, override)


def test_colocated_rollouts_get_the_parameters_of_every_step(good):
    mode = ["trainer.v1.trainer_mode=colocate_async", "+trainer.v1.colocate_async.parameter_sync_step=2"]
    with pytest.raises(ValueError, match=r"colocate_async\.parameter_sync_step=2: .* after every step"):
        check(*good, *mode)


def test_whole_groups_are_shared_by_data_parallel_ranks_not_by_gpus(good):
    ulysses = ["actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=2"]
    check(*good, "data.train_batch_size=3", *ulysses)
    with pytest.raises(ValueError, match="train_batch_size=3: 2 data-parallel ranks"):
        check(*good, "data.train_batch_size=3", "trainer.n_gpus_per_node=4", *ulysses)


def test_t_grpo_says_how_many_more_rollouts_there_are(good):
    good = [word for word in good if not word.startswith("algorithm=")]
    (note,) = check(*good, "algorithm=t_grpo", "actor_rollout_ref.rollout.n=8")
    assert "temporal_bonus: each prompt with a video has 4 more rollouts" in note


@pytest.mark.parametrize("mode", ["clip_cov", "kl_cov"])
def test_a_loss_that_chooses_tokens_by_advantage_gets_a_note(good, mode):
    (note,) = check(*good, f"actor_rollout_ref.actor.policy_loss.loss_mode={mode}")
    assert f"loss_mode={mode}: it chooses tokens by their advantages" in note


@pytest.fixture
def frames():
    return ["data.custom_cls.path=pkg://verl_twgrpo.video.dataset", "data.custom_cls.name=CachedFramesDataset"]


def test_a_frame_cache_that_is_not_there_is_named(good, frames):
    with pytest.raises(ValueError, match=r"data\.frame_cache=None: no such folder"):
        check(*good, *frames)


def test_a_frame_cache_has_frames_for_every_row_sampled_as_it_says(good, frames, tmp_path):
    frames.append(f"+data.frame_cache={tmp_path}")
    missing = r"data\.frame_cache=.*: no frames for 1 rows of data\.train_files=.*train\.parquet, the first .* row 0"
    with pytest.raises(ValueError, match=missing):
        check(*good, *frames)
    (row,) = read_rows(tmp_path / "train.parquet")
    FrameCache(tmp_path).put(row["videos"][0], torch.zeros(16, 3, 28, 28, dtype=torch.uint8), {}, [])
    check(*good, *frames)
    with pytest.raises(ValueError, match=r"no frames for 1 rows.*--patch-size 16"):
        check(*good, *frames, "data.image_patch_size=16")


@pytest.mark.parametrize(
    "key", ["algorithm.tw_grpo.dump_dir", "trainer.rollout_data_dir", "trainer.validation_data_dir"]
)
@pytest.mark.parametrize(
    ("folder", "reason"), [("train.parquet/below", "is a file"), ("/proc/x", "cannot write there")]
)
def test_outputs_go_to_folders_that_can_be_written_to(good, tmp_path, key, folder, reason):
    with pytest.raises(ValueError, match=rf"{re.escape(key)}=.*{reason}"):
        check(*good, f"{key}={tmp_path / folder}")
    before = sorted(tmp_path.rglob("*"))
    check(*good, f"{key}={tmp_path}/not/yet/there")
    assert sorted(tmp_path.rglob("*")) == before


def test_checkpoints_go_to_a_folder_that_can_be_written_to(good, tmp_path):
    folder = f"trainer.default_local_dir={tmp_path}/train.parquet"
    check(*good, folder)  # nothing is saved
    with pytest.raises(ValueError, match=r"trainer\.default_local_dir=.* is a file"):
        check(*good, folder, "trainer.save_freq=1")


def test_every_gold_answer_is_read(good, tmp_path):
    good.append("reward.reward_manager.name=multi_answer")
    path = tmp_path / "train.parquet"
    rows = [*read_rows(path), *read_rows(path)]
    rows[1]["reward_model"] = {"style": "rule", "ground_truth": "Z"}
    write_rows(rows, path, force=True)
    with pytest.raises(ValueError, match=r"data\.train_files=.*train\.parquet: row 1: .*Z is not among the options"):
        check(*good)


def test_a_junk_file_is_named_with_its_key(good, tmp_path):
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    with pytest.raises(
        ValueError, match=r"data\.val_files=.*junk\.parquet: it cannot be read as parquet \("
    ) as refused:
        check(*good, f"data.val_files={tmp_path}/junk.parquet")
    assert "\n" not in str(refused.value)


def test_another_verl_is_refused_unless_it_is_wanted(good, monkeypatch):
    monkeypatch.setattr(verl, "__version__", "0.10.0")
    with pytest.raises(ValueError, match=r"verl 0\.10\.0: this plugin was tested with 0\.9\.1"):
        check(*good)
    monkeypatch.setenv("VERL_TWGRPO_ANY_VERL", "1")
    (note,) = check(*good)
    assert "verl 0.10.0 was not tested" in note


def test_the_plan_runs_the_same_list(good, monkeypatch):
    """A check of a test's own is called by both."""
    called = []
    monkeypatch.setattr(registry, "CHECKS", [*registry.CHECKS])
    registry.check()(lambda config: called.append(config.data.train_batch_size))
    check(*good)
    plan.check_run(plan.compose_run([*good, "actor_rollout_ref.actor.ppo_mini_batch_size=4", *MICRO_BATCHES]))
    assert called == [4, 4]


def test_eq6_needs_its_loss(good):
    with pytest.raises(ValueError, match=r"loss_mode=vanilla: placement eq6"):
        check(*good, "algorithm.tw_grpo.placement=eq6", "actor_rollout_ref.actor.policy_loss.loss_mode=vanilla")


def test_fused_kernels_are_taken(good):
    check(*good, "actor_rollout_ref.model.use_fused_kernels=True")


def test_ulysses_is_taken_by_either_key_where_rows_are_not_padded(good):
    good += ["trainer.n_gpus_per_node=2"]
    for part in ("actor", "actor.fsdp_config", "ref", "ref.fsdp_config"):
        key = f"actor_rollout_ref.{part}.ulysses_sequence_parallel_size"
        check(*good, f"{key}=2", "actor_rollout_ref.model.use_remove_padding=True")
        with pytest.raises(ValueError, match=f"{key}=2: .* set actor_rollout_ref.model.use_remove_padding=True"):
            check(*good, f"{key}=2", "actor_rollout_ref.model.use_remove_padding=False")


def test_token_level_grpo_needs_no_weights_pass(good):
    good[0] = "algorithm=grpo_token"
    check(*good, "data.train_batch_size=3")
    check(*good, "trainer.v1.trainer_mode=sync")


def test_the_demos_recipe_says_what_makes_its_checkpoint(good):
    data = [override for override in good if override.startswith("data.")]
    with pytest.raises(ValueError, match=r"/no/demo/model: no such folder; `verl-twgrpo demo prepare --out /no/demo`"):
        check("recipe=demo_cpu", "demo_dir=/no/demo", *data, "data.train_batch_size=8")


def test_a_hub_name_is_left_to_the_hub(good):
    check(*good, "actor_rollout_ref.model.path=Qwen/Qwen2.5-VL-7B-Instruct")


def test_a_folder_that_is_no_checkpoint_is_refused(good, tmp_path):
    (tmp_path / "model" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"no config\.json in it"):
        check(*good)


def test_a_missing_video_is_named_with_file_and_row(good, tmp_path):
    (tmp_path / "a video.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=r"data\.train_files=.*train\.parquet: row 0: video .*a video\.mp4"):
        check(*good)


def media(tmp_path, **columns):
    """A parquet file with these columns of images and videos, a row for each of their entries."""
    count = len(next(iter(columns.values())))
    text = {"prompt": [[{"role": "user", "content": "What?"}]] * count, "data_source": ["own"] * count}
    truth = {"reward_model": [{"style": "rule", "ground_truth": "A"}] * count}
    path = tmp_path / "media.parquet"
    pq.write_table(pyarrow.table(text | truth | columns), path)
    return f"data.train_files={path}"


def test_images_mixtures_and_text_train_as_well_and_are_counted(good, tmp_path):
    picture = str(tmp_path / "picture.png")
    (tmp_path / "picture.png").write_bytes(b"not looked into here")
    video = str(tmp_path / "a video.mp4")
    images = [[{"image": picture}], [], None, [{"image": f"file://{picture}"}]]
    videos = [None, [{"video": video}], [], [{"video": video}]]
    (note,) = check(*good, media(tmp_path, images=images, videos=videos))
    assert "media.parquet: 2 of 4 rows without a video, 1 of them with images" in note
    (note,) = check(*good, media(tmp_path, images=[[picture]]))
    assert note.endswith("1 of 1 rows without a video, 1 of them with images")
    (note,) = check(*good, media(tmp_path, images=[[{"bytes": b"png", "path": "name inside the data set"}]]))
    assert "1 of 1 rows" in note
    (note,) = check(*good, media(tmp_path, extra_info=[{"id": "text only"}]))
    assert note.endswith("1 of 1 rows without a video, 0 of them with images")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"images": [[{"image": "/no/such.png"}]]}, r"row 0: image /no/such\.png is not there"),
        ({"images": [["/no/such.png"]]}, r"row 0: image /no/such\.png is not there"),
        ({"videos": [[], [{"video": "file:///no/such.mp4"}]]}, r"row 1: video /no/such\.mp4 is not there"),
        ({"videos": [[{"video": ["/no/frame_0.png"]}]]}, r"row 0: video /no/frame_0\.png is not there"),
        ({"videos": [[["/no/frame_0.png"]]]}, r"row 0: video /no/frame_0\.png is not there"),
    ],
)
def test_files_of_all_forms_are_looked_for(good, tmp_path, columns, message):
    with pytest.raises(FileNotFoundError, match=message):
        check(*good, media(tmp_path, **columns))


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
    assert "Disabled critic" not in done.stderr


def test_the_settings_are_one_node():
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=["algorithm=tw_grpo", "algorithm.tw_grpo.alpha=0.25"])
    resolved = OmegaConf.to_container(config.actor_rollout_ref.actor.policy_loss, resolve=True)
    assert resolved["tw_grpo"]["alpha"] == 0.25


@pytest.mark.parametrize(
    "override, reason",
    [
        ("trainer.v1.trainer_mode=sync", "does not keep groups together"),
        ("actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=2", "cuts a row over ranks"),
        ("actor_rollout_ref.actor.fsdp_config.pad_to_length=true", "wants rows of one length"),
    ],
)
def test_packed_groups_that_cannot_be_are_refused_and_fall_back_under_auto(good, override, reason):
    unweighted = [*good, "algorithm=grpo_token", override]
    (note,) = check(*unweighted, "algorithm.packed_groups=auto")
    assert note.startswith("algorithm.packed_groups=auto: groups run unpacked: ") and reason in note
    assert check(*unweighted, "algorithm.packed_groups=false") == []
    with pytest.raises(ValueError, match=f"algorithm.packed_groups=true: .*{reason}.*auto or false"):
        check(*unweighted, "algorithm.packed_groups=true")


@pytest.mark.parametrize(
    "model, reason",
    [
        ('{"model_type": "mistral"}', "model: mistral is not among the models that were tried"),
        (
            '{"model_type": "qwen2", "use_sliding_window": true, "num_hidden_layers": 2, "max_window_layers": 1}',
            "model: the model has layers with a sliding window",
        ),
    ],
)
def test_packed_groups_of_a_model_that_cannot_be_are_refused_on_the_driver(good, tmp_path, model, reason):
    (tmp_path / "model" / "config.json").write_text(model)
    (note,) = check(*good, "algorithm.packed_groups=auto")
    assert "groups run unpacked" in note and reason in note
    with pytest.raises(ValueError, match=f"algorithm.packed_groups=true: .*{reason}.*auto or false"):
        check(*good, "algorithm.packed_groups=true")


def test_packed_groups_is_one_of_three(good):
    with pytest.raises(ValueError, match="algorithm.packed_groups='often': choose one of auto, true, false"):
        check(*good, "algorithm.packed_groups=often")


def test_the_oracle_wants_words_in_the_training_data(good, tmp_path):
    oracle = ["algorithm.tw_grpo.weighting=oracle"]
    with pytest.raises(ValueError, match=r"data\.train_files=.*train\.parquet: no row has extra_info\.decisive, which"):
        check(*good, *oracle)
    (row,) = read_rows(tmp_path / "train.parquet")
    for words, message in ((["yes"], None), ([" "], r"row 0: extra_info\.decisive: need a list of words or phrases")):
        row["extra_info"]["decisive"] = words
        told = write_rows([row], tmp_path / f"told{len(words[0])}.parquet")
        if message is None:
            check(*good, *oracle, f"data.train_files={told}")
            continue
        with pytest.raises(ValueError, match=message):
            check(*good, *oracle, f"data.train_files={told}")
    # a file of another making
    table = pq.read_table(tmp_path / "train.parquet")
    bare = [{k: v for k, v in one.items() if k != "decisive"} for one in table["extra_info"].to_pylist()]
    column = table.column_names.index("extra_info")
    pq.write_table(table.set_column(column, "extra_info", pyarrow.array(bare)), tmp_path / "bare.parquet")
    with pytest.raises(ValueError, match=r"bare\.parquet: no row has extra_info\.decisive"):
        check(*good, *oracle, f"data.train_files={tmp_path}/bare.parquet")
