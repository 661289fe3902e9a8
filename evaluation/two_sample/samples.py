"""Checking samples at the border, and preparing them for tile-wise kernels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample.kernels import Kernel

# Above this ratio of the largest squared norm to the squared bandwidth, the norm trick ‖x‖² + ‖y‖² - 2xᵀy
# loses digits that the kernel would see: such samples are computed in float64.
LARGEST_SCALED_NORM = 32.0

Sample = torch.Tensor | np.ndarray


class Rows(NamedTuple):
    """Points of one or several samples, ready for tiles.

    Attributes:
        points: `(n, d)`, in the precision in which tiles are computed.
        squared_norms: `(n,)`, same precision.
    """

    points: torch.Tensor
    squared_norms: torch.Tensor

    def take(self, block: slice) -> "Rows":
        return Rows(self.points[block], self.squared_norms[block])


def as_sample(sample: Sample, name: str, device: str | torch.device | None) -> torch.Tensor:
    """A finite floating-point tensor `(n, d)` with n >= 2; images and other arrays are flattened by rows.

    Raises:
        InputError: fewer than two points or no dimension, NaN or infinity, not real numbers.
    """
    tensor = sample if isinstance(sample, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(sample))
    if tensor.is_complex() or tensor.dim() < 2:
        raise InputError(
            f"{name}: a sample is an array (n, d) of real numbers, got shape {tuple(tensor.shape)} of "
            f"{tensor.dtype}; a sample of n numbers is passed as (n, 1)"
        )
    if len(tensor) < 2 or tensor[0].numel() == 0:
        raise InputError(f"{name}: a test needs at least two points, got shape {tuple(tensor.shape)}")
    tensor = tensor.detach().to(device).flatten(1) if device is not None else tensor.detach().flatten(1)
    if tensor.dtype not in (torch.float32, torch.float64):
        exact = tensor.dtype in (
            torch.float16,
            torch.bfloat16,
            torch.uint8,
            torch.bool,
            torch.int8,
            torch.int16,
        )
        tensor = tensor.to(torch.float32 if exact else torch.float64)
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).any(1).sum())
        raise InputError(f"{name}: {bad} of {len(tensor)} points hold NaN or infinity")
    return tensor


def as_samples(samples: dict[str, Sample], device: str | torch.device | None) -> list[torch.Tensor]:
    """All samples as tensors of one dtype, device and dimension, in the given order.

    Raises:
        InputError: as for `as_sample`, or the dimensions differ.
    """
    tensors = [as_sample(sample, name, device) for name, sample in samples.items()]
    first_name, first = next(iter(samples)), tensors[0]
    for name, tensor in zip(samples, tensors, strict=True):
        if tensor.shape[1] != first.shape[1]:
            raise InputError(
                f"{first_name} has dimension {first.shape[1]} and {name} has {tensor.shape[1]}: "
                f"two samples can only be compared in the same space"
            )
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    return [tensor.to(first.device, dtype) for tensor in tensors]


def centred(pooled: torch.Tensor) -> torch.Tensor:
    """Rows minus their mean. Far from the origin the norm trick would cancel all digits."""
    return pooled - pooled.mean(0, dtype=torch.float64).to(pooled.dtype)


def prepare_rows(pooled: torch.Tensor, kernel: Kernel) -> Rows:
    """Rows `(N, d)`, already centred where the kernel allows it, in the precision that the kernel needs.

    float32 for bounded kernels whose bandwidth is not small against the spread of the points; else float64.
    The choice depends on the pooled rows only, never on which sample a row belongs to.
    """
    squared_norms = torch.linalg.vector_norm(pooled, dim=1, dtype=torch.float64).square_()
    cancels = kernel.family.geometry == "squared_euclidean" and (
        float(squared_norms.max()) > LARGEST_SCALED_NORM * kernel.bandwidth**2
    )
    dtype = torch.float32 if kernel.family.bounded and not cancels else torch.float64
    return Rows(pooled.to(dtype).contiguous(), squared_norms.to(dtype))


def pool(samples: Sequence[torch.Tensor], order: torch.Tensor, kernel_centres: bool) -> torch.Tensor:
    """The samples stacked in `order` (a permutation of all rows), centred if the kernel allows it."""
    pooled = torch.cat(list(samples))[order.to(samples[0].device)]
    return centred(pooled) if kernel_centres else pooled
