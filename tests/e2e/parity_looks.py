"""Several looks at the demo's model in one process, of which vLLM and verl are the dear part; prints one JSON.

python parity_looks.py DEMO_FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from verl_twgrpo.parity.command import settle_environment
from verl_twgrpo.parity.prompts import row_of_parquet, row_of_videos, write_video
from verl_twgrpo.parity.quiet import kept_quiet


def main(demo: Path, folder: Path) -> dict[str, dict]:
    settle_environment()
    from PIL import Image

    from verl_twgrpo.parity.actor import LocalWorker
    from verl_twgrpo.parity.sides import look

    data = demo / "data" / "train.parquet"

    def row_with(content: str, **pictures: list) -> dict:
        return row_of_videos([]) | {"prompt": [{"role": "user", "content": content}]} | pictures

    picture = folder / "picture.png"
    noise = np.random.default_rng(0).integers(0, 256, (56, 84, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture)
    films = row_of_videos([write_video(folder / "square.mp4")] * 2)["videos"]
    rows = {
        "video": row_of_parquet(data, 0),
        "text": row_with("what will happen?"),
        "image": row_with("<image>what will happen?", images=[str(picture)]),
        "two videos and an image": row_with(
            "<video>and<image>and<video>what?", videos=films, images=[str(picture)]
        ),
    }  # fmt: skip
    found = {name: look(str(demo / "model"), row, 16) for name, row in rows.items()}

    positions, pixels = LocalWorker._compute_position_ids, LocalWorker._compute_multi_modal_inputs

    def at_three_times_the_rate(self, input_ids, *args, **kwargs):
        made = positions(self, input_ids, *args, **kwargs).clone()
        video = input_ids[0] == self.tokenizer.convert_tokens_to_ids("<|video_pad|>")
        first = made[0, 1, video].min()
        made[0, 1, video] = first + 3 * (made[0, 1, video] - first)
        return made

    def without_a_picture(self, *args):
        made = pixels(self, *args)
        return {**made, "pixel_values_videos": made["pixel_values_videos"] * 0}

    LocalWorker._compute_position_ids = at_three_times_the_rate
    found["wrong rate"] = look(str(demo / "model"), row_of_parquet(data, 0), 16)
    LocalWorker._compute_position_ids = positions
    LocalWorker._compute_multi_modal_inputs = without_a_picture
    found["no picture"] = look(str(demo / "model"), row_of_parquet(data, 0), 16)
    return {name: seen.comparison.as_json() | {"lines": list(seen.lines())} for name, seen in found.items()}


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        with kept_quiet():
            looks = main(Path(sys.argv[1]), Path(folder))
        print(json.dumps(looks))
