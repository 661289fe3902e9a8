"""Between stored pixels (uint8) and what networks see (floats in [-1, 1])."""

from __future__ import annotations

import torch
from torch import Tensor


def from_uint8(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 images of any shape to floats in [-1, 1]: `x / 127.5 - 1`."""
    return pixels.to(dtype).div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """Floats in [-1, 1] to uint8, rounding to nearest; values outside are clipped. Inverse of `from_uint8`."""
    return images.detach().float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
