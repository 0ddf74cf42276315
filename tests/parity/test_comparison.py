"""What parity calls different, and where it says so."""

from __future__ import annotations

import pytest
import torch

from verl_twgrpo.parity.comparison import Film, Side, compare, frame_seconds, time_coordinates

VIDEO, IMAGE = 90, 91


def positions(prompt, steps, response=3):
    """Time, height, width of ``prompt`` with one video of 1 x 2 merged patches a grid: coordinates of its grids."""
    columns, start, steps = [], 0, list(steps)
    videos = [k for k, token in enumerate(prompt) if token == VIDEO]
    for place, token in enumerate(prompt):
        if token == VIDEO:
            grid, column = divmod(place - videos[0], 2)
            columns.append((start + steps[grid], start, start + column))
        else:
            if columns and prompt[place - 1] == VIDEO:
                start = max(map(max, columns)) + 1
            columns.append((start,) * 3)
            start += 1
    return torch.tensor([*columns, *((start + k,) * 3 for k in range(response))]).T


PROMPT = [1, 2] + [VIDEO] * 6 + [3, 4]
FILM = Film((3, 2, 4), [0.0, 0.5, 1.0])
SETTINGS = {"vision_ids": (VIDEO, IMAGE), "video_id": VIDEO, "merge": 2, "tokens_per_second": 2}


def side(steps=(0, 1, 2), prompt=PROMPT, log_probs=(-1.0, -2.0, -0.5)):
    return Side(list(prompt), positions(prompt, steps, len(log_probs)), list(log_probs))


def test_equal_sides_are_called_equal():
    found = compare(side(), side(), [FILM], **SETTINGS)
    assert found.differences == []
    assert found.prompt_ids_equal and found.position_ids_equal
    assert found.vision_tokens == 6
    assert found.time_coordinates == {"rollout": [[0, 1, 2]], "actor": [[0, 1, 2]]}
    assert found.seconds == [[0.0, 0.5, 1.0]]
    assert found.log_prob_diff_max == found.log_prob_diff_mean == 0


def test_the_first_different_token_is_named_and_decoded():
    other = PROMPT[:-1] + [7]
    found = compare(side(), side(prompt=other), [FILM], decode=lambda ids: f"<{ids[0]}>", **SETTINGS)
    assert not found.prompt_ids_equal
    assert "differ from token 9 on: rollout 4 '<4>', actor 7 '<7>' (10 and 10 tokens)" in found.differences[0]


def test_a_prompt_that_ends_early_is_named():
    found = compare(side(), side(prompt=PROMPT[:-1]), [FILM], **SETTINGS)
    assert not found.prompt_ids_equal and not found.position_ids_equal
    assert "rollout 4 '[4]', actor nothing (the prompt has ended)" in found.differences[0]
    assert "13 tokens in the rollout, 12 in the actor" in found.differences[1]


def test_a_side_with_another_rate_is_found_and_its_time_is_wrong():
    found = compare(side(steps=(0, 4, 8)), side(), [FILM], **SETTINGS)
    assert found.prompt_ids_equal and not found.position_ids_equal
    assert found.time_coordinates == {"rollout": [[0, 4, 8]], "actor": [[0, 1, 2]]}
    # two tokens of the second grid, two of the third, and all text behind the video
    assert (
        "differ at 9 of 13 tokens, first at token 4 ('[90]'): rollout (6, 2, 2), actor (3, 2, 2)"
        in (found.differences[0])
    )
    assert found.differences[1:] == [
        "time of video 1 in the rollout: its last frames are 4.00 s after the first by their coordinates 0 4 8, and "
        "1.00 s in the file"
    ]


def test_positions_of_the_response_count_too():
    shifted = side()
    shifted.positions_3T[:, -1] += 1
    found = compare(shifted, side(), [FILM], **SETTINGS)
    assert not found.position_ids_equal
    assert "at 1 of 13 tokens, first at token 12: " in found.differences[0]


def test_sides_that_agree_on_a_wrong_time_are_not_called_right():
    wrong = side(steps=(0, 0, 0))
    found = compare(wrong, wrong, [Film((3, 2, 4), [0.0, 2.0, 4.0])], **SETTINGS)
    assert found.position_ids_equal
    assert [line.split(":")[0] for line in found.differences] == [
        "time of video 1 in the rollout", "time of video 1 in the actor"
    ]  # fmt: skip


@pytest.mark.parametrize("rate", [None, 0])
def test_a_model_whose_coordinates_count_no_seconds_is_not_judged_by_them(rate):
    found = compare(side(), side(), [Film((3, 2, 4), [0.0, 20.0, 40.0])], **SETTINGS | {"tokens_per_second": rate})
    assert found.differences == [] and found.seconds == [None]


def test_whole_coordinates_and_average_rates_are_allowed_for():
    # CLEVRER: 128 frames at 25 per second, 16 of them, counted as 0.64 s a grid
    steps, seconds = [0, 1, 2, 3, 5, 6, 7, 8], [17 * k / 25 for k in range(8)]
    prompt = [1] + [VIDEO] * 16 + [2]
    one = side(steps, prompt)
    assert compare(one, one, [Film((8, 2, 4), seconds)], **SETTINGS).differences == []


@pytest.mark.parametrize(("dtype", "gap", "agree"), [
    ("float32", 1e-4, True), ("float32", 1e-2, False), ("bfloat16", 3e-2, True), ("bfloat16", 0.1, False),
    ("float32", float("nan"), False),
])  # fmt: skip
def test_log_probs_may_differ_by_rounding_only(dtype, gap, agree):
    found = compare(
        side(log_probs=(-1.0, -2.0 - 2 * gap)), side(log_probs=(-1.0, -2.0)), [FILM], dtype=dtype, **SETTINGS
    )
    assert (found.differences == []) == agree
    if not agree:
        assert "log-probs of the response differ by" in found.differences[0]
    if gap == gap:
        assert found.log_prob_diff_mean == pytest.approx(gap)
        assert found.log_prob_diff_max == pytest.approx(2 * gap)
        assert agree or "most at token 1: rollout " in found.differences[0]


def test_probability_that_only_the_actor_has_is_named():
    assert compare(side(), side(), [FILM], never_sampled=0.01, **SETTINGS).differences == []
    found = compare(side(), side(), [FILM], never_sampled=0.03, **SETTINGS)
    assert found.differences == [
        "the actor gives 3.0% of the probability to picture tokens, which the rollout never samples (limit 2%)"
    ]


def test_text_only_rows_have_no_videos():
    text = Side([1, 2, 3], torch.arange(5).expand(3, -1), [-1.0, -1.0])
    found = compare(text, text, [])
    assert found.differences == [] and found.vision_tokens == 0
    assert found.time_coordinates == {"rollout": [], "actor": []} and found.seconds == []


def test_each_video_of_a_prompt_has_its_own_coordinates():
    prompt = [1] + [VIDEO] * 4 + [2] + [VIDEO] * 2
    times = torch.tensor([[0, 1, 1, 6, 6, 9, 10, 13]] * 3)
    films = [Film((2, 2, 4)), Film((2, 2, 2))]
    assert time_coordinates(Side(prompt, times, []), films, VIDEO, 2) == [[0, 5], [0, 3]]


def test_frames_lie_at_their_numbers_over_the_files_rate():
    assert frame_seconds({"fps": 10.0, "frames_indices": [5, 7, 15, 20]}, 2, 2) == [0.0, 1.0]
    assert frame_seconds({"fps": 10.0, "frames_indices": [0, 5, 10]}, 2, 2) == [0.0, 1.0]
    assert frame_seconds({"frames_indices": [0, 5]}, 1, 2) == frame_seconds(None, 1, 2) == []
