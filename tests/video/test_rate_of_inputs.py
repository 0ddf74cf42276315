"""A video file that qwen-vl-utils reads tells the true rate of its sampled frames."""

import pytest
import verl  # noqa: F401 - loads the plugin
from qwen_vl_utils import process_vision_info

from verl_twgrpo.video.rate import sampled_rate


@pytest.mark.parametrize(("sampling", "rate"), [({"nframes": 8}, 2.0), ({"fps": 3.0}, 3.0)])
def test_a_file_read_by_qwen_vl_utils(make_video, sampling, rate):
    video = {"video": str(make_video("a.mp4", frames=100)), **sampling}  # four seconds
    messages = [{"role": "user", "content": [{"type": "video", "min_pixels": 784, "max_pixels": 3136, **video}]}]
    _, ((frames, metadata),) = process_vision_info(messages, return_video_metadata=True)
    assert sampled_rate(metadata) == pytest.approx(rate) and len(frames) == 4 * rate
