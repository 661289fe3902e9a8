"""Checking samples at the border, and preparing them for tile-wise kernels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample.kernels import AnyKernel, bounded

# Above the first ratio of the largest squared norm to the squared bandwidth, the norm trick ‖x‖² + ‖y‖² - 2xᵀy
# loses digits in float32 that the kernel would see: distances are then computed in float64. Above the second it
# loses them in float64 too: they are then computed by differences, which is many times slower.
LARGEST_SCALED_NORM = 32.0
LARGEST_SCALED_NORM_OF_FLOAT64 = 1e8
# Likewise for the largest Manhattan norm and the bandwidth. In so many dimensions and above they are float64 anyway.
LARGEST_SCALED_MANHATTAN_NORM = 8.0
LONG_SUMS = 256
# Up to so many points all is float64: it costs little, and rounding has few entries to average out over.
FEW_POINTS = 1024

Sample = torch.Tensor | np.ndarray


class Rows(NamedTuple):
    """Points of one or several samples, ready for tiles.

    Attributes:
        points: `(n, d)`, in the precision in which distances and inner products are computed; or `(blocks, b, d)`.
        squared_norms: `(n,)` or `(blocks, b)`, same precision.
        precision: of kernel values. A float64 distance rounded to float32 costs a bounded kernel one unit in the
            last place, whatever the distance.
        by_differences: whether distances come from differences and not from norms and inner products.
    """

    points: torch.Tensor
    squared_norms: torch.Tensor
    precision: torch.dtype
    by_differences: bool = False

    def take(self, block: slice) -> "Rows":
        return self._replace(points=self.points[block], squared_norms=self.squared_norms[block])

    def select(self, index: torch.Tensor) -> "Rows":
        return self._replace(points=self.points[index], squared_norms=self.squared_norms[index])

    def every(self, step: int, first: int) -> "Rows":
        """Rows `first`, `first + step`, ..."""
        points, norms = self.points[first::step], self.squared_norms[first::step]
        return self._replace(points=points.contiguous(), squared_norms=norms.contiguous())

    def tail(self, columns: int | None) -> "Rows":
        """The last so many columns of every row; None for all."""
        if columns is None:
            return self
        points = self.points[..., -columns:]
        return self._replace(points=points, squared_norms=points.square().sum(-1))

    def blocks(self, size: int) -> "Rows":
        """The first rows as blocks of `size` rows; those that fill no block are left out."""
        count = len(self.points) // size
        points = self.points[: count * size].view(count, size, -1)
        return self._replace(points=points, squared_norms=self.squared_norms[: count * size].view(count, size))


def as_sample(sample: Sample, name: str, device: str | torch.device | None, fewest: int = 2) -> torch.Tensor:
    """A finite floating-point tensor `(n, d)` with n >= `fewest`; images and other arrays are flattened by rows.

    Raises:
        InputError: fewer points or no dimension, NaN or infinity, not real numbers.
    """
    tensor = sample if isinstance(sample, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(sample))
    if tensor.is_complex() or tensor.dim() < 2:
        raise InputError(
            f"{name}: a sample is an array (n, d) of real numbers, got shape {tuple(tensor.shape)} of "
            f"{tensor.dtype}; a sample of n numbers is passed as (n, 1)"
        )
    if len(tensor) < fewest or tensor[0].numel() == 0:
        spelled = "two points" if fewest == 2 else "one point"
        raise InputError(f"{name}: a test needs at least {spelled}, got shape {tuple(tensor.shape)}")
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


def as_samples(
    samples: dict[str, Sample], device: str | torch.device | None, fewest: dict[str, int] | None = None
) -> list[torch.Tensor]:
    """All samples as tensors of one dtype, device and dimension, in the given order; `fewest` points of each, where
    not two.

    Raises:
        InputError: as for `as_sample`, or the dimensions differ.
    """
    tensors = [as_sample(sample, name, device, (fewest or {}).get(name, 2)) for name, sample in samples.items()]
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


class Extent(NamedTuple):
    """How far rows are from the origin: their largest squared Euclidean norm and their largest Manhattan norm."""

    squared: float
    manhattan: float


class RowForm(NamedTuple):
    """The form in which rows are made ready: the dtype of distances, and `precision` and `by_differences` of `Rows`."""

    dtype: torch.dtype
    precision: torch.dtype
    by_differences: bool

    def rows(self, points: torch.Tensor) -> Rows:
        """Points `(n, d)`, all or some of those that the form was chosen for."""
        squared_norms = torch.linalg.vector_norm(points, dim=1, dtype=torch.float64).square_()
        points = points.to(self.dtype).contiguous()
        return Rows(points, squared_norms.to(self.dtype), self.precision, self.by_differences)


def row_form(count: int, dimension: int, extent: Extent, *kernels: AnyKernel) -> RowForm:
    """The form of `count` rows that all kernels need.

    Kernel values are float32 for bounded kernels on more than a few points, else float64; distances are float32
    where the bandwidth is not small against the spread of the points. The choice depends on the pooled rows only,
    never on which sample a row belongs to.
    """
    terms = [term for kernel in kernels for term in kernel.terms]
    widths = [t.bandwidth for t in terms if t.family.geometry == "squared_euclidean" and t.family.bounded]
    ratio = extent.squared / min(widths) ** 2 if widths else 0.0
    manhattan = [t.bandwidth for t in terms if t.family.geometry == "manhattan"]
    far = bool(manhattan) and (
        dimension >= LONG_SUMS or extent.manhattan > LARGEST_SCALED_MANHATTAN_NORM * min(manhattan)
    )
    exact = count <= FEW_POINTS or not all(bounded(kernel) for kernel in kernels)
    precision = torch.float64 if exact else torch.float32
    dtype = torch.float64 if exact or far or ratio > LARGEST_SCALED_NORM else torch.float32
    return RowForm(dtype, precision, ratio > LARGEST_SCALED_NORM_OF_FLOAT64)


def extent_of(points: torch.Tensor, *, manhattan: bool) -> Extent:
    """The extent of rows `(n, d)`; without `manhattan` that norm is left at 0."""
    squared = float(torch.linalg.vector_norm(points, dim=1, dtype=torch.float64).max()) ** 2
    return Extent(
        squared,
        float(torch.linalg.vector_norm(points, ord=1, dim=1, dtype=torch.float64).max()) if manhattan else 0.0,
    )


def prepare_rows(pooled: torch.Tensor, *kernels: AnyKernel) -> Rows:
    """Rows `(N, d)`, already centred where the kernels allow it, in the form that all kernels need."""
    manhattan = any(term.family.geometry == "manhattan" for kernel in kernels for term in kernel.terms)
    extent = extent_of(pooled, manhattan=manhattan)
    return row_form(len(pooled), pooled.shape[1], extent, *kernels).rows(pooled)


def pool(samples: Sequence[torch.Tensor], order: torch.Tensor, kernel_centres: bool) -> torch.Tensor:
    """The samples stacked in `order` (a permutation of all rows), centred if the kernel allows it."""
    pooled = torch.cat(list(samples))[order.to(samples[0].device)]
    return centred(pooled) if kernel_centres else pooled
