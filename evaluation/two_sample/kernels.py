"""Kernels of two-sample tests, as functions of a distance or an inner product (MATH: comparing two samples).

A family says which geometry of a pair of points it needs (squared Euclidean distance, Manhattan distance or
inner product); the geometry of a tile of pairs is computed once (`tiles.py`) and turned into kernel values in
place.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch

from gebm.cluster.errors import InputError

Geometry = Literal["squared_euclidean", "manhattan", "inner_product"]
RATIONAL_QUADRATIC_EXPONENT = 1.0
LOG2_E = 1.0 / math.log(2.0)  # exponentials go by powers of two: torch's take a third of the time on a CPU, to one ulp


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


class Space(NamedTuple):
    """What is computed once for all kernels that need it: a geometry, of all columns of the rows or of the last
    `tail` ones."""

    geometry: Geometry
    tail: int | None


class Kernel(NamedTuple):
    """A kernel ready to use.

    Attributes:
        name: of its family.
        bandwidth: 1 where the family has none.
        dimension: of the rows.
        weight: that its values are multiplied by, in (0, 1] where it is a term of a sum.
        tail: it sees the last so many columns of a row only; None for all. A learnt kernel is a sum of a term on
            features and points, side by side, and of one on the points.
    """

    name: str
    bandwidth: float
    dimension: int
    weight: float = 1.0
    tail: int | None = None

    @property
    def family(self) -> KernelFamily:
        return KERNELS[self.name]

    @property
    def space(self) -> Space:
        return Space(self.family.geometry, self.tail)

    @property
    def terms(self) -> tuple["Kernel", ...]:
        return (self,)

    def values(self, geometry: torch.Tensor) -> torch.Tensor:
        """Kernel values of a tile; overwrites `geometry`."""
        values = self.family.values(geometry, self.bandwidth, self.tail or self.dimension)
        return values if self.weight == 1.0 else values.mul_(self.weight)


class KernelSum(NamedTuple):
    """`k = Σ_t k_t`: a kernel too, and characteristic if one of its terms is."""

    terms: tuple[Kernel, ...]


AnyKernel = Kernel | KernelSum
KernelChoice = str | AnyKernel
"""A kernel by name, whose bandwidth is still to be chosen, or one that is ready, as the learnt ones are."""
Bandwidth = float | Literal["median"] | Sequence[float | None] | None


def bounded(kernel: AnyKernel) -> bool:
    """Whether all terms have values between 0 and 1."""
    return all(term.family.bounded for term in kernel.terms)


def gaussian(squared: torch.Tensor, s: float, _dimension: int) -> torch.Tensor:
    """`exp(-‖x-y‖² / (2 s²))`."""
    return squared.mul_(-0.5 * LOG2_E / s**2).exp2_()


def laplace(manhattan: torch.Tensor, s: float, _dimension: int) -> torch.Tensor:
    """`exp(-‖x-y‖₁ / s)`."""
    return manhattan.mul_(-LOG2_E / s).exp2_()


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


def name_of(kernel: KernelChoice) -> str:
    """The name by which results call a kernel."""
    return kernel if isinstance(kernel, str) else "+".join(term.name for term in kernel.terms)


def term_names(kernel: KernelChoice, bandwidth: Bandwidth = "median") -> tuple[str, ...]:
    """The families of `kernel`: one, or several, in a name joined by `+`.

    One family with a sequence of bandwidths is the sum of that family at those bandwidths.

    Raises:
        InputError: a family that does not exist.
    """
    if not isinstance(kernel, str):
        return tuple(term.name for term in kernel.terms)
    names = tuple(name.strip() for name in kernel.split("+"))
    for name in names:
        if name not in KERNELS:
            raise InputError(f"kernel: no kernel {name!r}; there are {', '.join(KERNELS)}, and sums of them by '+'")
    if len(names) == 1 and not isinstance(bandwidth, str | int | float | None):
        names *= len(bandwidth)
    return names


def translation_invariant(kernel: KernelChoice) -> bool:
    """Whether MMD² under the kernel stays the same when all points are moved by one vector."""
    return all(KERNELS[name].translation_invariant for name in term_names(kernel))


def check_bandwidth(kernel: KernelChoice, bandwidth: Bandwidth) -> None:
    """Refuse what is not a bandwidth of each term that has one: positive and finite, or `median`; of a kernel that is
    ready and has its own, anything but `median` or None.

    Raises:
        InputError: a kernel that does not exist, a bandwidth that it cannot have.
    """
    if not isinstance(kernel, str):
        if bandwidth is not None and bandwidth != "median":
            raise InputError(f"bandwidth: the kernel that was given has its own; leave out {bandwidth!r}")
        return
    names = term_names(kernel, bandwidth)
    if bandwidth == "median":
        return
    each = bandwidth if isinstance(bandwidth, Sequence) else [bandwidth] * len(names)
    if isinstance(bandwidth, str) or not names or len(each) != len(names):
        raise InputError(
            f"bandwidth: must be a positive number or 'median', or one number for each of the {len(names)} terms of "
            f"kernel {kernel!r}, got {bandwidth!r}"
        )
    for name, value in zip(names, each, strict=True):
        if value is None and not KERNELS[name].scaled:
            continue
        if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise InputError(f"bandwidth: must be a positive number or 'median', got {value!r} for kernel {name!r}")


def build_kernel(
    kernel: KernelChoice, bandwidth: Bandwidth, dimension: int, median: Callable[[str], float]
) -> AnyKernel:
    """The kernel that two settings name, which `check_bandwidth` has let pass.

    Args:
        kernel: families joined by `+`, or a kernel that is ready and passes through.
        bandwidth: for all terms, or one each.
        dimension: of the points.
        median: the median heuristic for a family, asked only where it is needed.

    Raises:
        InputError: a kernel that is ready, for points of another dimension.
    """
    if not isinstance(kernel, str):
        if any(term.dimension != dimension for term in kernel.terms):
            raise InputError(
                f"kernel: it was made for rows of {kernel.terms[0].dimension} numbers, but the samples have "
                f"{dimension}; map points by the learnt kernel's `rows` first"
            )
        return kernel
    names = term_names(kernel, bandwidth)
    each = [bandwidth] * len(names) if isinstance(bandwidth, str | int | float | None) else list(bandwidth)
    terms = []
    for name, value in zip(names, each, strict=True):
        scaled = KERNELS[name].scaled
        width = 1.0 if not scaled else median(name) if not isinstance(value, int | float) else float(value)
        terms.append(Kernel(name, width, dimension))
    return terms[0] if len(terms) == 1 else KernelSum(tuple(terms))


def bandwidth_of(kernel: AnyKernel) -> float | tuple[float | None, ...] | None:
    """The bandwidth as `mmd_test` takes it: a number, one for each term of a sum, None where there is none."""
    each = tuple(term.bandwidth if term.family.scaled else None for term in kernel.terms)
    if all(width is None for width in each):
        return None
    return each if isinstance(kernel, KernelSum) else each[0]
