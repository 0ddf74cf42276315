"""`verl-twgrpo parity` with verl's agent loop and engine and a real vLLM: rows of every kind, and broken sides."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def looks(demo) -> dict[str, dict]:
    script = Path(__file__).with_name("parity_looks.py")
    done = subprocess.run([sys.executable, str(script), str(demo)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def beside_time(found: dict) -> list[str]:
    return [line for line in found["differences"] if not line.startswith("time of video")]


@pytest.mark.parametrize(
    ("kind", "vision_tokens"), [("video", 16), ("text", 0), ("image", 6), ("two videos and an image", 70)]
)
def test_rollout_and_actor_agree_on_rows_of_every_kind(looks, kind, vision_tokens):
    found = looks[kind]
    assert beside_time(found) == []
    assert found["prompt_ids_equal"] and found["position_ids_equal"]
    assert found["vision_tokens"] == vision_tokens
    assert found["time_coordinates"]["rollout"] == found["time_coordinates"]["actor"]
    assert found["log_prob_diff_max"] < 1e-3


def test_a_wrong_rate_on_one_side_is_found(looks):
    found = looks["wrong rate"]
    right, wrong = (found["time_coordinates"][side][0] for side in ("rollout", "actor"))
    assert wrong == [3 * time for time in right] and right[-1] > 0
    assert found["prompt_ids_equal"] and not found["position_ids_equal"]
    assert found["differences"][0].startswith("positions (time, height, width) differ at")
    assert any(line.startswith("DIFFERS") for line in found["lines"])


def test_pixels_that_one_side_does_not_get_show_in_the_log_probs(looks):
    found = looks["no picture"]
    assert found["prompt_ids_equal"] and found["position_ids_equal"]
    assert any("log-probs of the response differ" in line for line in found["differences"])
