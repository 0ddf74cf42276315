"""The GPU check at sizes of milliseconds on a processor, in a process that has torch and transformers alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "recipes" / "gpu_check" / "gpu_check.py"
# what a machine with a GPU may lack on which the check runs
ABSENT = ("verl", "ray", "vllm", "tensordict", "transfer_queue", "hydra", "omegaconf", "matplotlib", "pyarrow", "av")
WITHOUT = """
import runpy, sys
# to an import, and to whoever asks beforehand, a module that is None is not there
sys.modules.update(dict.fromkeys({absent!r}))
from verl_twgrpo.torchvision_ops import declare_missing_ops
declare_missing_ops()
sys.argv = [{script!r}, *sys.argv[1:]]
runpy.run_path({script!r}, run_name="__main__")
"""


def run(*words):
    code = WITHOUT.format(absent=ABSENT, script=str(SCRIPT))
    return subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_every_check_passes_and_one_json_and_one_table_are_written(tmp_path):
    done = run("--device", "cpu", "--tiny", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "gpu_check.json").read_text())
    assert all(check["passed"] for check in report["checks"])
    what = " ".join(check["what"] for check in report["checks"])
    for part in ("divergence jsd", "attention, flex_attention", "attention, sdpa by blocks", "bfloat16, gradient"):
        assert part in what
    assert all(timing["ms"] > 0 for timing in report["timings"])
    table = (tmp_path / "gpu_check.md").read_text()
    assert done.stdout == table and table.count("| passed |") == len(report["checks"])


@pytest.mark.slow
def test_without_a_gpu_it_says_so():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = run()
    assert done.returncode == 2
    assert "gpu_check: --device cuda: torch" in done.stderr
