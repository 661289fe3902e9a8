"""Kernels of two-sample tests, as functions of a distance or an inner product (MATH: comparing two samples).

A family says which geometry of a pair of points it needs (squared Euclidean distance, Manhattan distance or
inner product); the geometry of a tile of pairs is computed once (`tiles.py`) and turned into kernel values in
place.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch

Geometry = Literal["squared_euclidean", "manhattan", "inner_product"]
RATIONAL_QUADRATIC_EXPONENT = 1.0


class KernelFamily(NamedTuple):
    """How a kernel is computed.

    Attributes:
        geometry: what `values` takes.
        scaled: whether the family has a bandwidth.
        translation_invariant: whether MMD² stays the same when all points are moved by one vector, so that
            they may be centred first.
        bounded: values between 0 and 1. Others are computed in float64 throughout: their MMD² is a small
            difference of large sums.
        values: `(geometry of a tile, bandwidth, dimension) -> kernel values`, free to overwrite its first
            argument.
    """

    geometry: Geometry
    scaled: bool
    translation_invariant: bool
    bounded: bool
    values: Callable[[torch.Tensor, float, int], torch.Tensor]


class Kernel(NamedTuple):
    """A kernel ready to use: family, bandwidth (1 where the family has none) and dimension of the points."""

    name: str
    bandwidth: float
    dimension: int

    @property
    def family(self) -> KernelFamily:
        return KERNELS[self.name]

    def values(self, geometry: torch.Tensor) -> torch.Tensor:
        """Kernel values of a tile; overwrites `geometry`."""
        return self.family.values(geometry, self.bandwidth, self.dimension)


def gaussian(squared: torch.Tensor, s: float, _dimension: int) -> torch.Tensor:
    """`exp(-‖x-y‖² / (2 s²))`."""
    return squared.mul_(-0.5 / s**2).exp_()


def laplace(manhattan: torch.Tensor, s: float, _dimension: int) -> torch.Tensor:
    """`exp(-‖x-y‖₁ / s)`."""
    return manhattan.mul_(-1.0 / s).exp_()


def inverse_multiquadric(squared: torch.Tensor, s: float, _dimension: int) -> torch.Tensor:
    """`(1 + ‖x-y‖²/s²)^(-1/2)`."""
    return squared.mul_(1.0 / s**2).add_(1.0).rsqrt_()


def rational_quadratic(squared: torch.Tensor, s: float, _dimension: int) -> torch.Tensor:
    """`(1 + ‖x-y‖²/(2 a s²))^(-a)` with a = 1."""
    a = RATIONAL_QUADRATIC_EXPONENT
    return squared.mul_(0.5 / (a * s**2)).add_(1.0).pow_(-a)


def energy(squared: torch.Tensor, _s: float, _dimension: int) -> torch.Tensor:
    """`-‖x-y‖`: MMD² is half the energy distance (the terms in the norms cancel)."""
    return squared.sqrt_().neg_()


def polynomial(inner: torch.Tensor, _s: float, dimension: int) -> torch.Tensor:
    """`(xᵀy/d + 1)³`, the kernel of KID."""
    return inner.mul_(1.0 / dimension).add_(1.0).pow_(3)


def linear(inner: torch.Tensor, _s: float, _dimension: int) -> torch.Tensor:
    """`xᵀy`: MMD² is the squared distance of the means."""
    return inner


KERNELS: dict[str, KernelFamily] = {
    "gaussian": KernelFamily("squared_euclidean", True, True, True, gaussian),
    "laplace": KernelFamily("manhattan", True, True, True, laplace),
    "imq": KernelFamily("squared_euclidean", True, True, True, inverse_multiquadric),
    "rational_quadratic": KernelFamily("squared_euclidean", True, True, True, rational_quadratic),
    "energy": KernelFamily("squared_euclidean", False, True, False, energy),
    "polynomial": KernelFamily("inner_product", False, False, False, polynomial),
    "linear": KernelFamily("inner_product", False, True, False, linear),
}
