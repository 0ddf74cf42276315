"""By how much log-probs fall when the video is blanked: which rows are taken, and what is made of their log-probs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import verl.trainer.ppo.core_algos  # noqa: F401 - first: importing it loads training.losses
from transfer_queue import KVBatchMeta

from verl_twgrpo.training.settings import TWGRPOConfig
from verl_twgrpo.training.video_dependence import has_video, spread_out, video_dependence

VIDEO = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "what?"}]}]
TEXT = [{"role": "user", "content": "no <video> here"}]
IMAGE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}]
# log-probs of two rows' tokens with the video and without; the last token of the first row is a tool's
SEEN = {"a_0_0": [-1.0, -2.0, -9.0], "d_0_0": [-0.5]}
BLANK = {"a_0_0": [-1.5, -4.0, -1.0], "d_0_0": [-0.25]}
MASK = {"a_0_0": [1, 1, 0], "d_0_0": [1]}


class Trainer:
    """As much of the trainer as the measurement touches."""

    tw_grpo = SimpleNamespace(video_check_rows=2)

    def __init__(self, prompts, ranks=1):
        self.prompts, self.ranks, self.passes = prompts, ranks, []

    def _data_parallel_size(self):
        return self.ranks

    def _extra_pass(self, batch, column, view):
        self.passes.append((view, list(batch.keys), dict(batch.extra_info)))
        batch.extra_info = {}  # as verl leaves it

    def _fetch(self, batch, fields):
        def jagged(values):
            return torch.nested.as_nested_tensor([torch.tensor(values[key]) for key in batch.keys], layout=torch.jagged)

        columns = {"video_check_unchanged": SEEN, "video_check_blank": BLANK, "response_mask": MASK}
        return {
            name: [self.prompts[key] for key in batch.keys] if name == "raw_prompt" else jagged(columns[name])
            for name in fields
        }


def batch_of(prompts, padding=()):
    tags = [{"is_padding": key in padding} for key in prompts]
    return KVBatchMeta(keys=list(prompts), tags=tags, partition_id="train", extra_info={"temperature": 1.0})


def test_rows_with_a_video_are_run_twice_and_the_models_own_tokens_are_compared():
    prompts = {"a_0_0": VIDEO, "b_0_0": TEXT, "c_0_0": VIDEO, "d_0_0": VIDEO}
    trainer = Trainer(prompts)
    metrics = video_dependence(trainer, batch_of(prompts, padding=("c_0_0",)))
    assert [view for view, *_ in trainer.passes] == ["unchanged", "blank"]
    for _, keys, extra in trainer.passes:
        assert keys == ["a_0_0", "d_0_0"]
        # any number of rows divides into micro-batches of one
        assert extra["micro_batch_size_per_gpu"] == 1 and extra["use_dynamic_bsz"] is False
    # d: 0.5 and 2 of the first row, -0.25 of the second
    assert metrics["tw_grpo/video_dependence"] == pytest.approx(2.25 / 3)
    assert metrics["tw_grpo/video_dependence_abs"] == pytest.approx(2.75 / 3)
    assert metrics["tw_grpo/video_check_rows"] == 2


def test_a_batch_without_a_video_runs_nothing():
    prompts = {"a_0_0": TEXT, "b_0_0": IMAGE}
    trainer = Trainer(prompts)
    assert video_dependence(trainer, batch_of(prompts)) == {} and not trainer.passes


def test_a_video_is_found_where_the_dataset_puts_it():
    assert has_video(VIDEO) and not has_video(TEXT) and not has_video(IMAGE)


@pytest.mark.parametrize(
    ("rows", "wanted", "ranks", "count"), [(10, 3, 2, 4), (3, 8, 2, 2), (1, 4, 2, 0), (6, 6, 1, 6)]
)
def test_every_rank_gets_as_many_rows(rows, wanted, ranks, count):
    keys = [str(k) for k in range(rows)]
    chosen = spread_out(keys, wanted, ranks)
    assert len(chosen) == len(set(chosen)) == count and set(chosen) <= set(keys)


@pytest.mark.parametrize("setting", [{"video_check_freq": -1}, {"video_check_freq": True}, {"video_check_rows": 0}])
def test_impossible_settings_are_named(setting):
    (name,) = setting
    with pytest.raises(ValueError, match=name):
        TWGRPOConfig(**setting)
