"""Between what shards hold (uint8 pixels, float32 vectors) and what networks see (floats; pixels in [-1, 1])."""

from __future__ import annotations

import torch
from torch import Tensor


def from_uint8(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 images of any shape to floats in [-1, 1]: `x / 127.5 - 1`."""
    return pixels.to(dtype).div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """Floats in [-1, 1] to uint8, rounding to nearest; values outside are clipped. Inverse of `from_uint8`."""
    return images.detach().float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def from_stored(values: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """What shards hold as networks see it: uint8 images `(n, c, h, w)` in [-1, 1], float vectors `(n, d)` as they are.

    Raises `ValueError` for anything else.
    """
    if values.dtype == torch.uint8 and values.dim() == 4:
        return from_uint8(values, dtype)
    if values.is_floating_point() and values.dim() == 2:
        return values.to(dtype)
    raise ValueError(f"stored samples are uint8 images or float vectors, not {values.dtype} {tuple(values.shape)}")


def to_stored(samples: Tensor) -> Tensor:
    """What networks make as shards hold it: images `(n, c, h, w)` as uint8, vectors `(n, d)` as float32."""
    return samples.detach().float() if samples.dim() == 2 else to_uint8(samples)
