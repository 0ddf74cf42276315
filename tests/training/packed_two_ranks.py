"""One of the two ranks of test_packed_two_ranks.py: packed gradients against unpacked ones, and micro-batches."""

from __future__ import annotations

import sys

import torch
import verl  # noqa: F401 - the plugin first: it makes torchvision importable
from conftest import build_engine
from training.test_packed_groups import make_batch, make_prompt, run

from verl_twgrpo.training.engines.fsdp import TWGRPOEngine

# rank 0 has one group, rank 1 three: alone, they would make one micro-batch and two
GROUPS = [[("a", [4, 1, 7, 3])], [("b", [2, 9]), ("c", [5]), ("d", [6])]]


def main(folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("cpu:gloo")
    rank = torch.distributed.get_rank()
    engine = build_engine(TWGRPOEngine, folder)
    rows = []
    for number, (uid, lengths) in enumerate(GROUPS[rank]):
        prompt = make_prompt("untied", "video" if uid in "ab" else "", 5 + number, number + 10 * rank)
        rows += [(uid, prompt, length, False) for length in lengths]
    data = make_batch(rows)
    expected = run(engine, data, packed=False, micro_batch_size_per_gpu=2)[1]
    forwards = []
    hook = engine.module.register_forward_pre_hook(lambda *_: forwards.append(1))
    actual = run(engine, data, packed=True, micro_batch_size_per_gpu=2)[1]
    hook.remove()
    assert len(forwards) == 2, forwards
    largest = max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (actual[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6 * largest, name
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
