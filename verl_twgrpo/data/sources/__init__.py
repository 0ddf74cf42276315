"""The sources: one module each, with ``convert(row, split)``, its usual ``SPLIT`` and ``UNIQUE_VIDEO_NAMES``.

``UNIQUE_VIDEO_NAMES``: a video is known by its file name alone, in whatever folder it lies.
mini_clevrer is not here: it has no annotations, it makes its videos (``verl-twgrpo demo prepare``).
"""

from verl_twgrpo.data.sources import clevrer, mmvu, mvbench, nextgqa, star, tempcompass, videomme
from verl_twgrpo.data.sources.fields import Skipped

SOURCES = {
    "clevrer": clevrer,
    "nextgqa": nextgqa,
    "star": star,
    "mmvu": mmvu,
    "mvbench": mvbench,
    "tempcompass": tempcompass,
    "videomme": videomme,
}

__all__ = ["SOURCES", "Skipped"]
