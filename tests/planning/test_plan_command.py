"""``verl-twgrpo plan``, end to end: what it prints, what it refuses."""

from __future__ import annotations

import os
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_twgrpo import cli

pytestmark = pytest.mark.slow

RECIPE = "recipe=qwen2_5_vl_7b_clevrer"


@pytest.fixture
def plan(capsys):
    """Lines of the plan by label, its notes, exit code and what stands on stderr."""

    def run(*overrides):
        code = cli.main(["plan", *overrides])
        out, err = capsys.readouterr()
        notes = [line.removeprefix("note: ") for line in out.splitlines() if line.startswith("note: ")]
        lines = [line for line in out.splitlines() if not line.startswith("note: ")]
        return {label: text.strip() for label, text in (line.split("  ", 1) for line in lines)}, notes, code, err

    return run


def test_the_papers_run_needs_neither_gpu_nor_checkpoint_nor_data(plan, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("verl_twgrpo.planning.model.try_to_load_from_cache", lambda *_: None)
    lines, notes, code, _ = plan(RECIPE)
    assert code == 0
    assert lines["run"].endswith("trains Qwen/Qwen2.5-VL-7B-Instruct on 1 x 2 GPUs")
    assert "alpha 0.7" in lines["objective"] and "token-mean" in lines["objective"]
    assert lines["clip"] == "0.2 below, 0.28 above; idle: with one update per step the ratio is 1"
    assert lines["batch"].startswith("2 prompts x 8 responses = 16 rows per step; 8 rows (1 group) per rank")
    assert lines["updates"].startswith("1 per step, of 16 rows")
    assert lines["train video"].startswith("1024 tokens at most")
    assert lines["val video"].startswith("2048 tokens at most")
    assert lines["weights pass"].startswith("445.5 MiB") and "224.0 MiB" in lines["weights pass"]
    assert lines["training state"].startswith("58.0 GiB per rank on the host: parameters 15.4 GiB")
    assert lines["GPU memory"].startswith("about 30.9 GiB per GPU, an estimate")
    assert "vLLM takes 50% of the GPU, 15.4 GiB for weights" in lines["GPU memory"]
    assert lines["parameters"] == "8,292,166,656, 92% of them trained"
    assert lines["steps"] == "500; the data has 500 in one pass"
    assert "5 (every 100 steps) of 87.6 GiB; up to 2 at a time, 175.3 GiB" in lines["checkpoints"]
    assert "500 questions x 1, temperature 0.01, top_p 0.001" in lines["validation"]
    assert notes == [
        "not there yet: data.train_files=data/clevrer/clevrer-train.parquet and "
        "data.val_files=data/clevrer/clevrer-validation.parquet: no such file; make it with `verl-twgrpo data convert`"
    ]


@pytest.mark.parametrize(
    ("words", "gpus"),
    [
        (("recipe=qwen2_5_vl_7b_grounding",), 2),
        (("recipe=qwen2_5_vl_7b_video_r1",), 2),
        (("recipe=qwen2_5_vl_7b_video_r1", "algorithm=t_grpo"), 2),
        (("recipe=qwen2_5_vl_3b_tinyllava_nextqa",), 1),
    ],
)
def test_runs_of_other_tasks_and_data_are_planned(words, gpus, plan, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("verl_twgrpo.planning.model.try_to_load_from_cache", lambda *_: None)
    lines, notes, code, _ = plan(*words)
    assert code == 0
    assert lines["run"].endswith(f"on 1 x {gpus} GPU{'s' * (gpus > 1)}")
    (note,) = [note for note in notes if note.startswith("not there yet")]
    train, validation = re.findall(r"data\.\w+_files=(\S+)", note)
    assert train.rpartition("/")[0] == validation.rpartition("/")[0] and train != validation


def test_a_model_of_the_hub_is_not_fetched_for_a_comparison(overrides, monkeypatch):
    from verl_twgrpo.planning import command
    from verl_twgrpo.training.checks import video_time

    monkeypatch.setenv(video_time.SWITCH, "1")
    monkeypatch.setattr("verl_twgrpo.planning.model.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(video_time, "compare", lambda _: pytest.fail("this would ask the hub"))
    config = command.compose_run([*overrides, "actor_rollout_ref.model.path=Qwen/Qwen2.5-VL-7B-Instruct"])
    notes, _ = command.check_run(config)
    assert notes == [
        "Qwen/Qwen2.5-VL-7B-Instruct is not on this disk: training will compare how vLLM and the actor see its videos"
    ]
    assert os.environ[video_time.SWITCH] == "1"


def test_data_and_checkpoint_that_are_there_are_measured(plan, overrides):
    lines, notes, code, _ = plan(*overrides)
    assert code == 0
    assert lines["train video"].startswith("24 tokens; ") and lines["train video"].endswith("its text included")
    assert lines["steps"] == "2; the data has 2 in one pass"
    assert lines["validation"].startswith("5 questions x 1")
    assert "a validation batch of 5 " in lines["pixels"]
    assert notes == [
        "the run ends after step 2 of trainer.total_training_steps=500, as trainer.total_epochs=1 goes no further "
        "through the data"
    ]


def test_an_evaluation_has_no_batches_and_no_checkpoints(plan, overrides):
    lines, _, code, _ = plan("recipe=evaluate", *overrides[1:])
    assert code == 0
    assert set(lines) == {"run", "lengths", "val video", "pixels", "validation"}
    assert "evaluates" in lines["run"] and ", once; answers in" in lines["validation"]


def test_several_updates_a_step_and_padding_are_said(plan, overrides):
    lines, notes, _, _ = plan(
        *overrides, "data.train_batch_size=3", "actor_rollout_ref.actor.ppo_mini_batch_size=2", "trainer.save_freq=-1"
    )
    assert lines["updates"].startswith("2 per step, of 16 rows")
    assert lines["clip"].endswith("from the second update of a step on")
    assert any(note.startswith("verl adds 8 rows of padding per step: data.train_batch_size=3") for note in notes)
    assert "trainer.save_freq=-1: nothing is saved" in notes


def test_a_run_that_would_resume_says_so(plan, overrides, tmp_path):
    folder = tmp_path / "qwen2_5_vl_7b_clevrer" / "checkpoints"
    (folder / "global_step_1" / "actor").mkdir(parents=True)
    (folder / "latest_checkpointed_iteration.txt").write_text("1")
    _, notes, _, _ = plan(*overrides)
    assert any(note.startswith("it resumes after step 1 from trainer.default_local_dir=") for note in notes)


def test_no_weights_no_weights_pass(plan, overrides):
    lines, _, _, _ = plan(*overrides, "algorithm.tw_grpo.alpha=0")
    assert "weights pass" not in lines and lines["objective"].startswith("no token weights")


def test_packed_groups_say_what_they_save_or_why_they_are_off(plan, overrides):
    lines, _, _, _ = plan(*overrides, "algorithm.packed_groups=true")
    # 8 responses of at most 64 tokens; the longest of the prompts is measured
    prompt = int(lines["train video"].split("; ")[1].split()[0])
    packed, unpacked = prompt + 8 * 64, 8 * (prompt + 64)
    assert lines["packed groups"].startswith(
        f"a prompt of {prompt} tokens and 8 responses of 64: {packed} tokens in place of {unpacked} "
        f"({unpacked / packed:.1f} times fewer), of 6: {prompt + 48} tokens in place of {8 * (prompt + 6)} "
    )
    assert f"masks of up to {64 * (prompt + 64) / 1024:.1f} KiB per length" in lines["packed memory"]
    lines, _, _, _ = plan(*overrides, "algorithm.packed_groups=false")
    assert lines["packed groups"].endswith("(algorithm.packed_groups=false)") and "packed memory" not in lines
    unpacked = "actor_rollout_ref.actor.fsdp_config.pad_to_length=true"
    lines, notes, _, _ = plan(*overrides, "algorithm=grpo_token", "algorithm.packed_groups=auto", unpacked)
    assert "pad_to_length=True wants rows of one length" in lines["packed groups"]
    assert any("packed_groups=auto: groups run unpacked" in note for note in notes)


def test_a_missing_context_limit_is_pointed_out(plan, overrides):
    lines, notes, _, _ = plan(*overrides, "actor_rollout_ref.rollout.max_model_len=null")
    assert any("max_model_len is not set: vLLM makes room for" in note for note in notes)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe=nope", "Could not find 'recipe/nope' Available options"),
        ("data.max_prompt_lenght=1", "data.max_prompt_lenght: there is no such setting; did you mean data.max_pr"),
        ("algorithm.tw_grpo.alhpa=1", "no such setting; did you mean algorithm.tw_grpo.alpha? choose"),
        ("algorithm.tw_grpo.alpha=-1", "algorithm.tw_grpo.alpha=-1: need a number of 0 or more"),
        ("trainer.n_gpus_per_node=4", "data.train_batch_size=2: 4 data-parallel ranks"),
        ("actor_rollout_ref.rollout.n=1", "actor_rollout_ref.rollout.n=1: one response is no group"),
        (
            "actor_rollout_ref.rollout.temperature=0",
            "actor_rollout_ref.rollout.temperature=0: the responses of",
        ),
        ("actor_rollout_ref.actor.clip_ratio=0.1", "actor_rollout_ref.actor.clip_ratio=0.1: it has no effect"),
        (
            "data.max_prompt_length=24",
            "data.max_prompt_length=24: too small for data.train_files: its longest",
        ),
        ("actor_rollout_ref.rollout.max_model_len=319", "actor_rollout_ref.rollout.max_model_len=319: smaller than"),
        ("data.train_batch_size=6", "data.train_batch_size=6: the training data has 5 rows only"),
        ("trainer.val_only=True trainer.val_before_train=False", "trainer.val_only=True: verl heeds it only with"),
        ("actor_rollout_ref.model.path=/no/such", "actor_rollout_ref.model.path=/no/such: no such folder"),
        (
            "actor_rollout_ref.actor.use_dynamic_bsz=False actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=3 "
            "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
            "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=3: does not divide the 16 rows",
        ),
        ("actor_rollout_ref.actor.use_dynamic_bsz=False", "[actor] Please set at least one of"),
        ("data.val_files=${nowhere.at_all}", "nowhere.at_all"),
    ],
)
def test_what_cannot_work_is_one_sentence_with_its_key_and_exit_code_2(plan, overrides, override, message):
    words = override.split()
    if words[0].startswith("recipe="):
        overrides = []
    lines, _, code, err = plan(*overrides, *words)
    assert code == 2 and not lines
    assert message in err and err.startswith("verl-twgrpo: ")
    assert len(err.strip().splitlines()) == 1


def test_a_context_beyond_the_models_is_refused(plan, overrides):
    _, _, code, err = plan(*overrides, "actor_rollout_ref.rollout.max_model_len=999999")
    assert code == 2 and "actor_rollout_ref.rollout.max_model_len=999999: the model takes" in err


def test_a_text_only_model_and_data_are_planned(plan, overrides, tmp_path):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from verl_twgrpo.mini_clevrer.model.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=1, max_position_embeddings=1024, **sizes)
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [
        {
            "data_source": "own",
            "prompt": [{"role": "user", "content": "what?"}],
            "reward_model": {"style": "rule", "ground_truth": "A"},
        }
    ] * 4
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "text.parquet")
    text_only = [
        f"actor_rollout_ref.model.path={tmp_path}/model",
        f"data.train_files={tmp_path}/text.parquet",
        f"data.val_files={tmp_path}/text.parquet",
    ]
    lines, _, code, err = plan(*overrides, *text_only, "actor_rollout_ref.actor.freeze_vision_tower=False")
    assert code == 0, err
    assert lines["train video"] == lines["val video"] == "none; 256 of the prompt are left for its text"
    assert lines["steps"] == "2; the data has 2 in one pass"
    # and the recipe's frozen tower is refused by its key
    _, _, code, err = plan(*overrides, *text_only)
    assert code == 2 and "freeze_vision_tower=True: Qwen2ForCausalLM has no module called" in err
