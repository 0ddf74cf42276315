"""What all tests share: videos, and a tiny Qwen2.5-VL inside verl's FSDP2 engine."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import torch
    from tensordict import TensorDict

TESTS = Path(__file__).resolve().parent
WHOLLY_SLOW = re.compile(r"^pytestmark = pytest\.mark\.(slow|e2e)$", re.MULTILINE)

# a machine that does other things is no failure
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")
# it imports vLLM in a process of its own for every new model; tests that mean it switch it on
os.environ.setdefault("VERL_TWGRPO_VIDEO_CHECK", "0")


def pytest_collection(session) -> None:
    """Before any test module imports transformers' processors; not where the tests of other processes are watched."""
    if hasattr(session.config, "workerinput") or not session.config.getoption("numprocesses", None):
        from verl_twgrpo.torchvision_ops import declare_missing_ops

        declare_missing_ops()


def pytest_ignore_collect(collection_path: Path, config) -> bool | None:
    """A file whose tests are all slow, or end to end, is not even imported where both are left out."""
    if collection_path.suffix != ".py" or "not slow" not in (config.option.markexpr or ""):
        return None
    return True if WHOLLY_SLOW.search(collection_path.read_text(encoding="utf-8")) else None


def write_video(
    path: Path,
    frames: int = 30,
    width: int = 96,
    height: int = 64,
    *,
    shade: int = 0,
    key_every: int = 12,
    variable_rate: bool = False,
    codec: str = "libx264",
    rate: int = 25,
    format: str | None = None,
    **encoder: str,
) -> Path:
    """A moving white bar on grey; frame k differs from every other one. ``encoder`` holds options of the codec."""
    import av  # here, as torch below: whoever only watches other processes' tests waits for neither

    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"g": str(key_every), "bf": "2"} if codec == "libx264" else {}
    options |= encoder
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        time = 0
        for k in range(frames):
            picture = np.full((height, width, 3), (shade + 5 * k) % 200, np.uint8)
            picture[:, (3 * k) % width : (3 * k) % width + 6] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            time += 400 if variable_rate and k % 5 == 4 else 1000 // rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def make_video(tmp_path) -> Callable[..., Path]:
    """Write a video under the test's folder: ``make_video("a b/é.mp4", frames=9)``."""
    return lambda name, **options: write_video(tmp_path / name, **options)


# the form of the files that the paper's models were trained and evaluated on
USUAL = {
    "as MMVU's": {"frames": 240, "width": 640, "height": 360, "rate": 24},
    "as CLEVRER's": {"frames": 128, "width": 480, "height": 320, "qp": "0"},  # lossless: High 4:4:4 Predictive
}


@pytest.fixture(scope="session", params=USUAL)
def usual_video(request, tmp_path_factory) -> Path:
    """A video of the usual size, length and codec; its stem is the number of its frames."""
    form = USUAL[request.param]
    return write_video(tmp_path_factory.mktemp("usual") / f"{form['frames']}.mp4", **form)


VOCABULARY = 97
TINY = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]},
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


@pytest.fixture(scope="session")
def on_two_ranks() -> Callable[..., list[subprocess.CompletedProcess]]:
    """``on_two_ranks(script, *arguments)``: how the two processes of a script end, gloo's variables set."""
    return _on_two_ranks


def _on_two_ranks(script: Path, *arguments: str) -> list[subprocess.CompletedProcess]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    paths = [str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *arguments]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    ranks = [
        subprocess.Popen(command, env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, **pipes)
        for rank in range(2)
    ]
    try:
        errors = [rank.communicate(timeout=500)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    return [
        subprocess.CompletedProcess(command, rank.returncode, stderr=error)
        for rank, error in zip(ranks, errors, strict=True)
    ]


@pytest.fixture(scope="session")
def process_group():
    """A group of one rank over gloo, as a worker has it."""
    import torch
    import verl  # noqa: F401 - the plugin first: it makes torchvision importable

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("cpu:gloo", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory, process_group) -> dict[str, Path]:
    """A tiny Qwen2.5-VL with its own head ("untied"), one with the embedding as head ("tied"), kin of it, a text model.

    "qwen2_vl" and "qwen3_vl" (with deepstack features) share key heads among query heads.
    """
    import torch
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
    )

    folders = {}
    for name in ("untied", "tied"):
        torch.manual_seed(0)
        config = Qwen2_5_VLConfig(
            text_config=TINY | {"tie_word_embeddings": name == "tied"},
            vision_config={
                "depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 1, "out_hidden_size": 64,
                "fullatt_block_indexes": [0],
            },
            image_token_id=90, video_token_id=91, vision_start_token_id=92, vision_end_token_id=93,
            tie_word_embeddings=name == "tied", initializer_range=0.3,
        )  # fmt: skip
        folder = tmp_path_factory.mktemp(name)
        Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
        _tokenizer(PreTrainedTokenizerFast).save_pretrained(folder)
        folders[name] = folder
    special = {"image_token_id": 90, "video_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93}
    shared_heads = TINY | {"num_key_value_heads": 1}
    kin = {
        "qwen2_vl": Qwen2VLForConditionalGeneration(
            Qwen2VLConfig(
                text_config=shared_heads,
                vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 1, "mlp_ratio": 2},
                tie_word_embeddings=False, initializer_range=0.3, **special,
            )
        ),
        "qwen3_vl": Qwen3VLForConditionalGeneration(
            Qwen3VLConfig(
                text_config=shared_heads | {"head_dim": 32, "initializer_range": 0.3},
                vision_config={
                    "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 1, "out_hidden_size": 64,
                    "deepstack_visual_indexes": [0], "num_position_embeddings": 16, "initializer_range": 0.3,
                },
                tie_word_embeddings=True, **special,
            )
        ),
    }  # fmt: skip
    for name, model in kin.items():
        folders[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(folders[name])
        _tokenizer(PreTrainedTokenizerFast).save_pretrained(folders[name])
    folders["text"] = tmp_path_factory.mktemp("text")
    text = TINY | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    Qwen2ForCausalLM(Qwen2Config(**text, initializer_range=0.3)).save_pretrained(folders["text"])
    _tokenizer(PreTrainedTokenizerFast).save_pretrained(folders["text"])
    return folders


VIDEO_MODELS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


@pytest.fixture(scope="session")
def video_models(tmp_path_factory) -> dict[str, Path]:
    """Tiny checkpoints with random weights and processors, with the time settings of the released models."""
    return {kind: _video_model(kind, tmp_path_factory.mktemp(kind)) for kind in VIDEO_MODELS}


def _video_model(kind: str, folder: Path) -> Path:
    import torch
    import transformers

    from verl_twgrpo.mini_clevrer.model.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    token = tokenizer.convert_tokens_to_ids
    name = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}[kind]
    patch = 16 if kind == "qwen3_vl" else 14
    video_class = transformers.Qwen3VLVideoProcessor if kind == "qwen3_vl" else transformers.Qwen2VLVideoProcessor
    sizes = {
        "size": {"shortest_edge": (2 * patch) ** 2, "longest_edge": 64 * 16 * (2 * patch) ** 2},
        "patch_size": patch, "temporal_patch_size": 2, "merge_size": 2,
    }  # fmt: skip
    getattr(transformers, f"{name}Processor")(
        image_processor=transformers.Qwen2VLImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=video_class(**sizes),
        chat_template=tokenizer.chat_template,
    ).save_pretrained(folder)
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 96, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 3, "num_key_value_heads": 3, "max_position_embeddings": 2048, "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "initializer_range": 0.3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]},
    }  # fmt: skip
    vision = {
        "qwen2_vl": {"depth": 1, "embed_dim": 96, "hidden_size": 96, "num_heads": 3, "mlp_ratio": 1},
        "qwen2_5_vl": {
            "depth": 1, "hidden_size": 96, "intermediate_size": 128, "num_heads": 3, "out_hidden_size": 96,
            "fullatt_block_indexes": [0], "tokens_per_second": 2,
        },
        "qwen3_vl": {
            "depth": 1, "hidden_size": 96, "intermediate_size": 128, "num_heads": 3, "out_hidden_size": 96,
            "deepstack_visual_indexes": [0], "num_position_embeddings": 64,
        },
    }[kind]  # fmt: skip
    if kind == "qwen3_vl":
        # vLLM on the CPU looks for architectures in the text part, where the released checkpoints have none
        text |= {"head_dim": 32, "architectures": ["Qwen3ForCausalLM"]}
        text["rope_parameters"] = {**text["rope_parameters"], "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    config = getattr(transformers, f"{name}Config")(
        text_config=text,
        vision_config={"patch_size": patch, "temporal_patch_size": 2, "spatial_merge_size": 2, **vision},
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"), vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=False, dtype="float32", initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    _never_say(model, [token("<|image_pad|>"), token("<|video_pad|>")])
    model.save_pretrained(folder)
    return folder


def _never_say(model, tokens: list[int]) -> None:
    """Give ``tokens`` no probability: verl forbids vLLM to sample them, which trained models would not do anyway.

    The first dimension of the text's residual stream becomes a constant, which the head turns against them.
    """
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "visual" not in name and name.endswith(("o_proj.weight", "down_proj.weight")):
                weight[0] = 0
        model.get_input_embeddings().weight[:, 0] = 1
        model.lm_head.weight[tokens] = 0
        model.lm_head.weight[tokens, 0] = -1000


def _tokenizer(cls):
    from tokenizers import Tokenizer, models

    words = {f"t{k}": k for k in range(VOCABULARY)}
    return cls(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="t2")), eos_token="t1", pad_token="t0")


@dataclass
class Batch:
    """Rows of a batch: prompt and response token ids, group ids, and whether verl added the row as padding."""

    prompts: list[torch.Tensor]
    responses: list[torch.Tensor]
    uids: list[str]
    padding: list[bool]

    def tensordict(self, text: bool = False, **settings) -> TensorDict:
        """As a worker gets it: jagged tensors, the uid as a non-tensor column, settings as non-tensor data.

        ``text`` gives position ids of one dimension, as a model without a vision tower takes them.
        """
        import torch
        from verl.utils import tensordict_utils as tu

        def jagged(rows):
            return torch.nested.as_nested_tensor(rows, layout=torch.jagged)

        masks = [torch.full_like(r, 0 if pad else 1) for r, pad in zip(self.responses, self.padding, strict=True)]
        whole = [torch.cat(pair) for pair in zip(self.prompts, self.responses, strict=True)]
        offsets = torch.tensor([0] + [len(row) for row in whole]).cumsum(0)
        positions = torch.cat([torch.arange(len(row)).expand(4, -1) for row in whole], dim=1)
        data = tu.get_tensordict(
            {
                "prompts": jagged(self.prompts),
                "responses": jagged(self.responses),
                "input_ids": jagged(whole),
                "response_mask": jagged(masks),
                "loss_mask": jagged(masks),
                "uid": list(self.uids),
            }
        )
        data["position_ids"] = (
            torch.nested.nested_tensor_from_jagged(positions[0], offsets)
            if text
            else torch.nested.nested_tensor_from_jagged(positions, offsets, jagged_dim=2)
        )
        tu.assign_non_tensor(data, **settings)
        return data


@pytest.fixture
def ragged_batch() -> Batch:
    """Three groups of 3, 2 and 1 rows, out of order, of unequal lengths, and one synthetic padding row."""
    import torch

    generator = torch.Generator().manual_seed(1)

    def tokens(count):
        return torch.randint(3, 80, (count,), generator=generator)

    uids = ["a", "b", "a", "pad", "c", "b", "a"]
    prompts = {"a": tokens(7), "b": tokens(5), "c": tokens(9), "pad": tokens(11)}
    lengths = [6, 9, 4, 1, 5, 3, 8]
    return Batch([prompts[u] for u in uids], [tokens(n) for n in lengths], uids, [u == "pad" for u in uids])


def build_engine(
    cls, folder, dtype="fp32", strategy="fsdp2", options=None, forward_only=False, sequence_parallel=1, **model
):
    """An initialised engine of a checkpoint, in a process that has its process group."""
    from omegaconf import OmegaConf
    from verl.trainer.config import CheckpointConfig
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig

    from verl_twgrpo.training.engines.options import give_options

    model_config = omega_conf_to_dataclass(
        OmegaConf.create(
            {
                "path": str(folder),
                "use_remove_padding": False,
                "enable_gradient_checkpointing": False,
                "override_config": {"attn_implementation": "sdpa"},
                **model,
            }
        ),
        HFModelConfig,
    )
    engine_config = FSDPEngineConfig(
        strategy=strategy,
        forward_only=forward_only,
        use_torch_compile=False,
        model_dtype=dtype,
        mixed_precision={"param_dtype": dtype, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        micro_batch_size_per_gpu=1,
        infer_micro_batch_size_per_gpu=1,
        use_dynamic_bsz=False,
        ulysses_sequence_parallel_size=sequence_parallel,
    )
    if options is not None:
        give_options(model_config, options)
    engine = cls(
        model_config=model_config,
        engine_config=engine_config,
        optimizer_config=FSDPOptimizerConfig(lr=1e-3, total_training_steps=10),
        checkpoint_config=CheckpointConfig(),
    )
    engine.initialize()
    return engine


@pytest.fixture(scope="session")
def make_engine(checkpoints, process_group):
    """An initialised engine: ``make_engine(TWGRPOEngine, head="tied", lora_rank=4)``; head may be a folder."""
    return lambda cls, head="untied", **settings: build_engine(cls, checkpoints.get(head, head), **settings)


@pytest.fixture
def make_actor_config():
    """``make_actor_config(loss_mode="tw_grpo", **settings)``: verl's actor settings."""
    from omegaconf import OmegaConf
    from verl.utils.config import omega_conf_to_dataclass

    def make(loss_mode="tw_grpo", **settings):
        policy_loss = {
            "_target_": "verl_twgrpo.training.settings.TWGRPOPolicyLossConfig",
            "loss_mode": loss_mode,
            "tw_grpo": {"_target_": "verl_twgrpo.training.settings.TWGRPOConfig", **settings},
        }
        node = {
            "_target_": "verl.workers.config.FSDPActorConfig",
            "strategy": "fsdp2",
            "rollout_n": 2,
            "ppo_micro_batch_size_per_gpu": 1,
            "clip_ratio_low": 0.2,
            "clip_ratio_high": 0.28,
            "policy_loss": policy_loss,
            "optim": {"lr": 1e-3, "_target_": "verl.workers.config.FSDPOptimizerConfig"},
        }
        return omega_conf_to_dataclass(OmegaConf.create(node))

    return make


class FakeQueue:
    """TransferQueue's two calls that a step makes, on a dictionary: key -> field -> value of that row."""

    def __init__(self) -> None:
        self.rows: dict[str, dict] = {}

    def put(self, keys, partition_id, fields, tags=None):
        import torch
        from transfer_queue import KVBatchMeta

        for name in list(fields.keys()):
            column = fields[name]
            values = column.unbind() if isinstance(column, torch.Tensor) else list(column)
            for key, value in zip(keys, values, strict=True):
                self.rows.setdefault(key, {})[name] = value
        return KVBatchMeta(partition_id=partition_id, keys=list(keys), tags=[self.tags[key] for key in keys])

    def get(self, keys, partition_id, select_fields):
        import torch
        from verl.utils import tensordict_utils as tu

        columns = {}
        for name in select_fields:
            values = [self.rows[key][name] for key in keys if name in self.rows[key]]
            if not values:
                continue
            assert len(values) == len(keys), f"{name} is missing in some rows"
            is_tensor = isinstance(values[0], torch.Tensor)
            columns[name] = torch.nested.as_nested_tensor(values, layout=torch.jagged) if is_tensor else values
        return tu.get_tensordict(columns)


class FakeStep:
    """One step of the trainer from old log-probs to advantages, through verl's own methods, without Ray.

    infer: what the workers compute: (extra_info of the batch) -> fields by token of prompt and response. rewards: one
    per row. keys: verl's row keys; by default the rows of a uid are its rollouts 0, 1, ...
    """

    def __init__(self, monkeypatch, batch: Batch, infer, rewards, keys=None, masks=None, last_pass=None) -> None:
        import torch
        import transfer_queue as tq
        from transfer_queue import KVBatchMeta

        if keys is None:
            keys = [f"{uid}_{batch.uids[:row].count(uid)}_0" for row, uid in enumerate(batch.uids)]
        self.batch, self.infer, self.queue = batch, infer, FakeQueue()
        self.last_pass = last_pass or (lambda: {"seconds": 0.5, "vocabulary_size": VOCABULARY})
        self.queue.tags = {
            key: {"is_padding": pad, "seq_len": len(p) + len(r)}
            for key, pad, p, r in zip(keys, batch.padding, batch.prompts, batch.responses, strict=True)
        }
        for row, key in enumerate(keys):
            response = batch.responses[row]
            mask = torch.full_like(response, 0 if batch.padding[row] else 1) if masks is None else masks[row]
            scores = torch.zeros(len(response))
            scores[-1] = rewards[row]
            self.queue.rows[key] = {
                "uid": batch.uids[row], "responses": response, "response_mask": mask, "rm_scores": scores,
                "extra_fields": {"reward_extra_info": {"accuracy": float(rewards[row] > 0)}},
                "reward_model": {"ground_truth": "A"}, "extra_info": {"id": f"q{batch.uids[row]}"},
            }  # fmt: skip
        self.meta = KVBatchMeta(partition_id="train", keys=list(keys), tags=[self.queue.tags[key] for key in keys])
        monkeypatch.setattr(tq, "kv_batch_get", self.queue.get)
        monkeypatch.setattr(tq, "kv_batch_put", self.queue.put)

    def compute_log_prob(self, meta):
        """verl's worker method: fields of every row into the queue."""
        for name, column in self.infer(dict(meta.extra_info)).items():
            for key, value in zip(meta.keys, column.unbind(), strict=True):
                self.queue.rows[key][name] = value
        return meta

    def last_weights_pass(self):
        return [self.last_pass()]

    def trainer(self, **settings):
        """A TWGRPOTrainer that has what a step needs, and these settings."""
        from concurrent.futures import ThreadPoolExecutor

        from omegaconf import OmegaConf

        from verl_twgrpo.algorithm.task_deviation import TaskMoments
        from verl_twgrpo.training.dump import StepDump
        from verl_twgrpo.training.prompt_order import PromptOrder
        from verl_twgrpo.training.settings import TWGRPOConfig
        from verl_twgrpo.training.trainer import TWGRPOTrainer

        trainer = TWGRPOTrainer.__new__(TWGRPOTrainer)
        trainer.config = OmegaConf.create(
            {
                "algorithm": {"adv_estimator": "tw_grpo", "use_kl_in_reward": False, "gamma": 1.0, "lam": 1.0},
                "actor_rollout_ref": {
                    "rollout": {"n": 3, "temperature": 0.7, "calculate_log_probs": False},
                    "actor": {"loss_agg_mode": "token-mean", "loss_scale_factor": None},
                },
            }
        )
        trainer.tw_grpo = TWGRPOConfig(**settings)
        trainer.weighting = trainer.tw_grpo.make_weighting()
        trainer._moments = TaskMoments(trainer.tw_grpo.std_decay) if trainer.tw_grpo.std == "task" else None
        trainer._temporal_bonus = trainer.tw_grpo.made_temporal_bonus
        trainer.config.algorithm.tw_grpo = settings
        trainer._groups, trainer._prompt_number, trainer._prompt_order = [], {}, PromptOrder()
        trainer.packed_groups = "false"
        trainer._dump, trainer._dump_futures = StepDump(trainer.tw_grpo.dump_dir), []
        trainer._dump_executor = ThreadPoolExecutor(1)
        trainer.actor_rollout_wg, trainer.timing_raw, trainer.global_steps = self, {}, 12
        trainer.tokenizer = _Words()
        return trainer

    def run(self, trainer) -> dict:
        """Metrics of the step; what it stored is in ``column``."""
        metrics: dict = {}
        self.meta.extra_info["temperature"] = 0.7
        batch = trainer._compute_old_log_prob(self.meta, metrics)
        trainer._compute_advantage(batch, metrics)
        for future in trainer._dump_futures:
            future.result()
        return metrics

    def column(self, name: str) -> list[torch.Tensor]:
        return [self.queue.rows[key][name] for key in self.meta.keys]


class _Words:
    def decode(self, ids, skip_special_tokens=False):
        return "".join(f"<{token}>" for token in ids)


@pytest.fixture
def fake_step(monkeypatch):
    """``fake_step(batch, infer, rewards)``: a ``FakeStep``."""
    return lambda *args, **kwargs: FakeStep(monkeypatch, *args, **kwargs)


@pytest.fixture
def engine_step(fake_step, make_engine, ragged_batch):
    """A ``FakeStep`` whose workers are our engine with the tiny model."""
    from verl_twgrpo.training.engines.fsdp import TWGRPOEngine

    engine = make_engine(TWGRPOEngine)

    def infer(extra_info):
        settings = {"calculate_entropy": True, "compute_loss": False, "use_dynamic_bsz": False} | extra_info
        data = ragged_batch.tensordict(micro_batch_size_per_gpu=1, use_remove_padding=False, **settings)
        with engine.eval_mode():
            return engine.infer_batch(data)["model_output"]

    return fake_step(ragged_batch, infer, [1.0, 0.0, 0.5, 0.0, 1.0, 1.0, 0.0], last_pass=lambda: engine.last_pass)
