"""patches/ on a copy of the installed verl: it applies, its own tests pass there, and the plugin works with it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PATCHES = sorted((ROOT / "patches").glob("*.patch"))
BASE_VERSION = "0.9.1"

# What a patch needs before it; the others apply to verl alone.
NEEDS = {"0006-tw-grpo": ["0002-per-token-fields", "0003-keep-groups-whole"]}

# As verl checks the title of a pull request (tests/special_sanity/check_pr_title.py there).
MODULES = {"algo", "cfg", "data", "doc", "fsdp", "model", "trainer", "worker"}
TITLE = re.compile(r"\[([a-z_, ]+)\] (feat|fix|refactor|chore|test): .+")

# The tests of the patches run without the plugin; torchvision must be importable all the same.
PYTEST = (
    "import sys, pytest; from verl_twgrpo.torchvision_ops import declare_missing_ops; declare_missing_ops(); "
    "sys.exit(pytest.main(sys.argv[1:]))"
)


def git(folder: Path, *arguments: str) -> str:
    # nothing of the user's configuration (signing keys, hooks), and no repository around this one
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    for who in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{who}_NAME": "patches", f"GIT_{who}_EMAIL": "patches@test.invalid"}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


def python(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def passed(done: subprocess.CompletedProcess[str]) -> int:
    """How many tests pytest passed; none may have failed or been skipped."""
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    summary = done.stdout.strip().splitlines()[-1]
    assert "skipped" not in summary, summary
    return int(re.search(r"(\d+) passed", summary)[1])


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """The installed verl in a git repository of its own."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    if (version := metadata.version("verl")) != BASE_VERSION:
        pytest.skip(f"the patches are for verl {BASE_VERSION}, installed is {version}")
    folder = tmp_path_factory.mktemp("verl_base")
    installed = Path(importlib.util.find_spec("verl").submodule_search_locations[0])
    shutil.copytree(installed, folder / "verl", ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "--quiet")
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--message", "base")
    git(folder, "tag", "base")
    return folder


@pytest.fixture(scope="session")
def patched(base, tmp_path_factory) -> Path:
    """A copy of verl with the whole series."""
    folder = tmp_path_factory.mktemp("verl_patched")
    git(base, "worktree", "add", "--quiet", "--detach", str(folder), "base")
    git(folder, "am", "--keep-non-patch", *map(str, PATCHES))
    return folder


def test_the_series_applies_and_keeps_titles_and_reasons(patched):
    messages = git(patched, "log", "--reverse", "--format=%B%x00", "base..HEAD").split("\0")[:-1]
    assert len(messages) == len(PATCHES) == 12
    for message in messages:
        title, _, body = message.strip().partition("\n")
        assert (match := TITLE.fullmatch(title)), title
        assert set(match[1].split(", ")) <= MODULES
        for part in ("### What does this PR do?", "### Test", "AI assistance disclosure", "Co-authored-by:"):
            assert part in body, f"{title}: {part}"


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_patch_needs_no_others_than_it_says(base, tmp_path, patch):
    needed = [patch.with_name(f"{name}.patch") for name in NEEDS.get(patch.stem, [])]
    worktree = tmp_path / "alone"
    git(base, "worktree", "add", "--quiet", "--detach", str(worktree), "base")
    git(worktree, "am", "--quiet", *map(str, [*needed, patch]))
    changed = git(worktree, "diff", "--name-only", "HEAD~1", "HEAD").split()
    assert any(re.fullmatch(r"tests/.+/test_\w+_on_cpu\.py", name) for name in changed)


def test_the_readme_names_every_patch():
    readme = (ROOT / "patches" / "README.md").read_text(encoding="utf-8")
    assert sorted(set(re.findall(r"\b\d{4}-[\w-]+\.patch", readme))) == [patch.name for patch in PATCHES]


def test_the_patches_own_tests_pass(patched):
    tests = sorted(str(path) for path in (patched / "tests").rglob("test_*_on_cpu.py"))
    checks = Path(__file__).with_name("patched_config_checks.py")
    done = python(
        *("-c", PYTEST, "-q", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={patched}", *tests, str(checks)),
        folder=patched,
        VERL_USE_EXTERNAL_PLUGINS="none",
        CUDA_VISIBLE_DEVICES="",
        PYTHONPATH=str(patched),
    )
    assert passed(done) > 100


def test_the_plugin_works_with_all_of_them(patched, tmp_path):
    import verl  # noqa: F401 - loads the plugin
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    stock = tmp_path / "stock.json"
    with initialize_config_module("verl.trainer.config", version_base=None):
        selections = ["algorithm=tw_grpo", "algorithm=tw_grpo_released", "algorithm=grpo_token", "recipe=demo_cpu"]
        composed = {s: OmegaConf.to_container(compose("ppo_trainer", overrides=[s])) for s in selections}
    stock.write_text(json.dumps(composed), encoding="utf-8")
    own = [ROOT / "tests" / "training" / name for name in ("test_losses.py", "test_balance.py")]
    done = python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, own)),
        str(Path(__file__).with_name("plugin_on_patched.py")),
        folder=ROOT,
        PYTHONPATH=str(patched),
        PATCHED_VERL=str(patched),
        STOCK_CONFIGURATIONS=str(stock),
    )
    assert passed(done) > 20
