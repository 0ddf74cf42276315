"""A video given as a list of frames tells its rate, whatever the file's was.

qwen-vl-utils 0.0.14 numbers the frames of a list 0, 1, 2 and gives ``raw_fps``, the rate of the file that they were
taken from, as the rate of these numbers (vision_process.py, fetch_video): Qwen3-VL's timestamps then run too fast.
And it takes a list without ``sample_fps`` for 2 frames per second without saying so.
"""

from __future__ import annotations

from types import ModuleType

import wrapt

from verl_twgrpo.compat.workaround import Workaround
from verl_twgrpo.video.rate import DEFAULT_RATE, constant_rate, is_list_of_frames, rate_of_list, say_default_rate


def tell_rate_of_lists(vision_process: ModuleType) -> None:
    """Wrap ``fetch_video``: the metadata of a list say ``sample_fps`` frames per second, or the default."""

    def fetch_video(wrapped, instance, args, kwargs):
        video = args[0] if args else kwargs["ele"]
        made = wrapped(*args, **kwargs)
        if not is_list_of_frames(video) or not (kwargs.get("return_video_metadata") or args[3:4] == (True,)):
            return made
        with_fps = kwargs.get("return_video_sample_fps") or args[2:3] == (True,)
        (frames, _), *sample_fps = made if with_fps else (made,)
        rate = rate_of_list(video)
        if rate is None:
            say_default_rate()
        told = frames, constant_rate(len(frames), rate or DEFAULT_RATE)
        return (told, *sample_fps) if with_fps else told

    wrapt.wrap_function_wrapper(vision_process, "fetch_video", fetch_video)


WORKAROUND = Workaround(
    module="qwen_vl_utils.vision_process",
    apply=tell_rate_of_lists,
    because="numbers the frames of a list by one rate and gives the file's, and assumes 2 per second in silence",
    versions="qwen-vl-utils==0.0.14",
)
