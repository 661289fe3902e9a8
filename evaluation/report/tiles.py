"""Many small images in one picture, as a `data:` address."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

SHARPEST = 4  # pixels a side for one image pixel, at most: enough for phone screens of 3 dots a pixel
LARGEST_SIDE = 1600  # pixels of the picture: more cannot be seen and makes the page heavy


def tile(images: np.ndarray, columns: int, gap_after: tuple[int, ...] = ()) -> np.ndarray:
    """uint8 RGBA `(height, width, 4)`: images `(n, channels, h, w)` row by row with transparent gaps.

    The gap is a sixteenth of an image, at least one pixel; three times that after the columns in `gap_after`.
    Transparent gaps let the page show through, in light and in dark mode.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"images are {images.dtype} {images.shape}, expected uint8 (n, 1 or 3, height, width)")
    count, channels, height, width = images.shape
    gap = gap_between(width)
    columns = min(columns, count)
    rows = -(-count // columns)
    lefts = column_lefts(columns, width, gap_after)
    canvas = np.zeros((rows * (height + gap) - gap, lefts[-1] + width, 4), np.uint8)
    colour = np.broadcast_to(images, (count, 3, height, width)) if channels == 1 else images
    for number, image in enumerate(colour):
        top, left = number // columns * (height + gap), lefts[number % columns]
        canvas[top : top + height, left : left + width, :3] = image.transpose(1, 2, 0)
        canvas[top : top + height, left : left + width, 3] = 255
    return canvas


def gap_between(width: int) -> int:
    """Pixels between two images of that width."""
    return max(1, width // 16)


def column_lefts(columns: int, width: int, gap_after: tuple[int, ...] = ()) -> list[int]:
    """Where each column begins, in pixels."""
    gap = gap_between(width)
    wide = (2 * gap * sum(after <= column for after in gap_after) for column in range(columns))
    return [column * (width + gap) + extra for column, extra in enumerate(wide)]


def tile_png_uri(images: np.ndarray, columns: int, gap_after: tuple[int, ...] = ()) -> str:
    """The tiles, enlarged by a whole factor without smoothing, as `data:image/png;base64,...`."""
    canvas = tile(images, columns, gap_after)
    factor = max(1, min(SHARPEST, LARGEST_SIDE // max(canvas.shape[:2])))
    enlarged = canvas.repeat(factor, axis=0).repeat(factor, axis=1)
    buffer = io.BytesIO()
    picture = Image.fromarray(enlarged, "RGBA")
    if images.shape[1] == 1:
        picture = picture.convert("LA")
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
