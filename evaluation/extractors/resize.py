"""Resizing as one pair of matrix products, the same for every image of a batch."""

from functools import lru_cache

import torch
import torch.nn.functional as F


@lru_cache(maxsize=64)
def bicubic_matrix(size_in: int, size_out: int) -> torch.Tensor:
    """Weights `(size_out, size_in)` of bicubic interpolation along one side (Keys' kernel, a = -1/2).

    Pixel centres at half integers; when the image shrinks, the kernel is widened by the same factor, so that
    nothing aliases (the convention of Pillow).
    """
    identity = torch.eye(size_in, dtype=torch.float64)[None, None]
    resized = F.interpolate(identity, size=(size_out, size_in), mode="bicubic", antialias=True)
    return resized[0, 0]


def resize(images: torch.Tensor, vertical: torch.Tensor, horizontal: torch.Tensor) -> torch.Tensor:
    """Images `(batch, channels, height, width)` to `(batch, channels, rows of vertical, rows of horizontal)`.

    Interpolation is linear and separable, so it is `vertical @ image @ horizontal.T`. Values are not clipped:
    bicubic weights may overshoot the range of the pixels slightly.
    """
    return vertical @ (images @ horizontal.T)
