"""What convolutional networks ask of the shape of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from gebm.trainer.model.settings import ImageShape

Layout = TypeVar("Layout")


def channels_and_size(network: str, image_shape: ImageShape) -> tuple[int, int]:
    """Channels and side of square images. Raises `ValueError` when the data are vectors."""
    if len(image_shape) != 3:
        raise ValueError(
            f'network = "{network}" is for images, the data are vectors of {image_shape[0]} numbers: '
            'use network = "mlp"'
        )
    return image_shape[0], image_shape[1]


def published(network: str, size: int, layouts: Mapping[int, Layout]) -> Layout:
    """The layout for images of `size` pixels. Raises `ValueError` when the family has none."""
    if size not in layouts:
        *others, last = (f"{known}x{known}" for known in layouts)
        raise ValueError(
            f'network = "{network}" makes and reads images of {", ".join(others)} or {last}, the data has '
            f"{size}x{size}: make shards of one of these sizes, or use another network"
        )
    return layouts[size]


def scaled(widths: Sequence[int], factor: float) -> list[int]:
    """Numbers of channels times `factor`, at least 1 each."""
    return [max(1, round(width * factor)) for width in widths]
