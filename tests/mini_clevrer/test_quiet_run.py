"""A run's flood goes to a file; the screen gets its steps, and the end of the file if it fails."""

from __future__ import annotations

import sys

import pytest

from verl_twgrpo.mini_clevrer.quiet_run import parse_step, run_quietly, step_line

# as verl's console logger prints it inside a Ray worker
LINE = (
    "\x1b[36m(TaskRunner pid=7)\x1b[0m step:{} - critic/rewards/mean:1.25 - tw_grpo/accuracy:np.float64(0.5)"
    " - timing_s/step:4.125 - training/global_step:{}"
)


def program(steps: int, code: int = 0) -> list[str]:
    lines = "\n".join(["WARNING flood", LINE.format(0, 0), *(LINE.format(k, k) for k in range(1, steps + 1))])
    return [
        sys.executable,
        "-c",
        f"import sys; print({lines!r}); print('the cause', file=sys.stderr); sys.exit({code})",
    ]


def test_a_line_of_verls_console_logger_is_read():
    step, metrics = parse_step(LINE.format(3, 3))
    assert step == 3
    assert metrics["critic/rewards/mean"] == 1.25 and metrics["tw_grpo/accuracy"] == 0.5
    assert parse_step("a step:by step guide") is None


@pytest.mark.slow
def test_the_screen_has_a_line_per_step_and_the_file_has_everything(tmp_path):
    shown = []
    assert run_quietly(program(3), tmp_path / "run" / "log.txt", 3, shown.append) == 0
    assert [line.split("  ")[0] for line in shown] == ["step 1 of 3", "step 2 of 3", "step 3 of 3"]
    assert "reward 1.25  accuracy 0.50" in shown[0]
    assert "flood" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.slow
def test_a_run_that_fails_shows_the_end_of_its_log_and_keeps_its_exit_code(tmp_path):
    shown = []
    assert run_quietly(program(1, code=3), tmp_path / "log.txt", 2, shown.append) == 3
    assert "exit code 3" in shown[-2] and str(tmp_path / "log.txt") in shown[-2]
    assert "the cause" in shown[-1]


def test_the_time_left_is_said_from_the_second_step_on():
    assert step_line(1, 30, {"timing_s/step": 4.0}, None).endswith("4.0 s")
    assert step_line(2, 30, {"timing_s/step": 4.0}, 112.0).endswith("4.0 s, 1 min 52 s left")
