"""One of two ranks over which Ulysses cuts rows; run by test_ulysses.py.

The log-prob step with weights, an extra pass over an altered video and verl's own step are compared with those of an
engine whose rows are whole and padded; both ranks have the same rows.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import torch
import torch.nn.functional as F
import verl  # noqa: F401 - the plugin first: it makes torchvision importable
from conftest import build_engine
from training.test_packed_groups import run, three_groups
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from verl.models.transformers import qwen2_vl
from verl.workers.engine.fsdp import FSDPEngineWithLMHead

from verl_twgrpo.training.engines.fsdp import TWGRPOEngine
from verl_twgrpo.training.views import VIEW_KEY

VIEW = {VIEW_KEY: {"name": "shuffled", "seed": 3, "step": 1}}
FUSED = {"use_fused_kernels": True, "fused_kernel_options": {"impl_backend": "torch"}}


def varlen(q, k, v, cu_seqlens_q, softmax_scale=None, causal=True, **_):
    """flash-attn's ``flash_attn_varlen_func`` for [S, heads, D], row by row."""
    rows = [
        F.scaled_dot_product_attention(*(x[a:b].transpose(0, 1)[None] for x in (q, k, v)), is_causal=causal)
        for a, b in zip(cu_seqlens_q[:-1].tolist(), cu_seqlens_q[1:].tolist(), strict=True)
    ]
    return torch.cat([row[0].transpose(0, 1) for row in rows])


def one_row(q, k, v, *_, is_causal=True, **__):
    """transformers' ``_flash_attention_forward`` for [1, S, heads, D], a single row."""
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=is_causal).transpose(1, 2)


# what verl's attention for cut rows takes from flash-attn, which needs a GPU
STAND_INS = {
    "flash_attn_varlen_func": varlen,
    "_flash_attention_forward": one_row,
    "_flash_supports_window_size": False,
    "_flash_supports_deterministic": False,
    "_flash_use_top_left_mask": False,
    "fa_peft_integration_check": lambda q, k, v, target_dtype=None: (q, k, v),
}


def same(found, expected, data) -> None:
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        for row, (one, other) in enumerate(zip(found[name], rows, strict=True)):
            if data["uid"][row] != "pad":
                torch.testing.assert_close(
                    one, other, atol=2e-5, rtol=1e-5, msg=lambda m, n=name, r=row: f"{n} {r} {m}"
                )


def compare(folder: str) -> None:
    data = three_groups("untied")
    processor = SimpleNamespace(video_processor=Qwen2VLVideoProcessor())
    whole = build_engine(TWGRPOEngine, folder)
    object.__setattr__(whole.model_config, "processor", processor)
    cases = [{"kind": "jsd"}, {"kind": "released"}, VIEW]
    expected = [run(whole, data, packed=False, forward_only=True, **case) for case in cases]
    for fused in ({}, FUSED):
        cut = build_engine(TWGRPOEngine, folder, use_remove_padding=True, sequence_parallel=2, **fused)
        object.__setattr__(cut.model_config, "processor", processor)
        settings = {"use_remove_padding": True, "use_fused_kernels": bool(fused)}
        for rows in (1, len(data)):
            for case, values in zip(cases, expected, strict=True):
                found = run(
                    cut, data, packed=False, forward_only=True, micro_batch_size_per_gpu=rows, **settings, **case
                )
                same(found, values, data)
    stock = build_engine(FSDPEngineWithLMHead, folder, use_remove_padding=True, sequence_parallel=2)
    verls = run(stock, data, packed=False, forward_only=True, use_remove_padding=True)
    same(verls, {name: expected[0][name] for name in verls}, data)


def main(folders: list[str]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("cpu:gloo")
    for name, stand_in in STAND_INS.items():
        setattr(qwen2_vl, name, stand_in)
    for folder in folders:
        compare(folder)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
