"""Images of rows: the size that they are shown in, and what keeps one from being used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image, UnidentifiedImageError

from verl_twgrpo.video.digest import known_digest


def image_shape(image: Mapping[str, Any], patch_size: int = 14) -> tuple[int, int, int]:
    """(3, height, width) that qwen-vl-utils' ``fetch_image`` resizes a row's image to; ``ValueError`` if it cannot.

    An image without ``min_pixels`` or ``max_pixels`` has that library's.
    """
    from qwen_vl_utils import vision_process as qwen

    try:
        with Image.open(image["image"]) as opened:
            opened.load()
            width, height = opened.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(f"{image['image']}: cannot be read as an image ({error})") from None
    factor = patch_size * qwen.SPATIAL_MERGE_SIZE
    try:
        height, width = qwen.smart_resize(
            height, width, factor=factor, min_pixels=image.get("min_pixels"), max_pixels=image.get("max_pixels")
        )
    except ValueError as error:
        raise ValueError(f"{image['image']}: {error}") from None
    if not height or not width:
        raise ValueError(f"{image['image']}: too long and thin for {image.get('max_pixels')} pixels; allow it more")
    return 3, height, width


def image_problems(images: list[Mapping[str, Any]], patch_size: int) -> Iterator[tuple[str, str]]:
    """Kind and message of what is wrong with each image: missing, changed since it was converted, or broken."""
    for image in images:
        path = image["image"]
        try:
            digest = known_digest(path)
        except FileNotFoundError:
            yield "image missing", path
            continue
        except (OSError, ValueError) as error:  # ValueError: a null byte in a name
            yield "image broken", f"{path}: cannot be read ({error})"
            continue
        if image["digest"] and image["digest"] != digest:
            yield "image changed", f"{path}: SHA-256 {digest[:12]}.., was {image['digest'][:12]}.."
            continue
        try:
            image_shape(image, patch_size)
        except ValueError as error:
            yield "image broken", str(error)
