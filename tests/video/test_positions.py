"""Positions of a prompt's tokens: worked out by hand here, compared with vLLM's in tests/compat."""

import pytest
import torch

from verl_twgrpo.video.positions import prompt_positions

TEXT, VIDEO, IMAGE = 5, 7, 9


def positions(ids, **given):
    return prompt_positions(torch.tensor(ids), video_token=VIDEO, image_token=IMAGE, **given).tolist()


def test_text_goes_on_behind_the_largest_position():
    ids = [TEXT, *[VIDEO] * 6, TEXT, *[IMAGE] * 2, TEXT]
    found = positions(ids, video_grids=[(3, 2, 4)], time_steps=[2.5], image_grids=[(1, 4, 2)])
    time = [0, 1, 1, 3, 3, 6, 6, 7, 8, 8, 10]
    height = [0, 1, 1, 1, 1, 1, 1, 7, 8, 9, 10]
    width = [0, 1, 2, 1, 2, 1, 2, 7, 8, 8, 10]
    assert found == [time, height, width]


def test_two_videos_in_a_row_keep_their_own_rates():
    found = positions([VIDEO] * 5, video_grids=[(2, 2, 2), (3, 2, 2)], time_steps=[4.0, 1.0])
    assert found[0] == [0, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("ids", "given", "reason"),
    [
        ([VIDEO] * 2, {}, "no grid left"),
        ([VIDEO] * 2, {"video_grids": [(3, 2, 2)], "time_steps": [1.0]}, "has fewer"),
        ([TEXT], {"video_grids": [(3, 2, 2)], "time_steps": [1.0]}, "more grids"),
        ([VIDEO], {"video_grids": [(1, 2, 2)]}, "1 videos with 0 time steps"),
    ],
)
def test_what_does_not_match_is_said(ids, given, reason):
    with pytest.raises(ValueError, match=reason):
        positions(ids, **given)
