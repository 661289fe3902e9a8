"""The kernel of a distributed test, with its bandwidth and the form that its rows need, chosen on pooled rows."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample.bandwidth import choose_kernel
from gebm.evaluation.two_sample.distributed.table import FeatureTable, Points, extent_of_tables, mean_of
from gebm.evaluation.two_sample.distributed.tile_kernel import HalfKernel, PlainKernel, TileKernel, half_kernel
from gebm.evaluation.two_sample.kernels import (
    Bandwidth,
    Kernel,
    KernelChoice,
    KernelSum,
    bandwidth_of,
    name_of,
    translation_invariant,
)
from gebm.evaluation.two_sample.samples import row_form

Precision = Literal["float32", "bf16"]
PRECISIONS = ("float32", "bf16")


class KernelWish(NamedTuple):
    """A kernel by its name, ready, or of a kind of its own; its bandwidth; and the precision of tiles."""

    kernel: KernelChoice | TileKernel
    bandwidth: Bandwidth
    precision: str


class ChosenKernel(NamedTuple):
    """The kernel, and what is taken off all rows: `(d,)` float64, or None."""

    kernel: TileKernel
    centre: np.ndarray | None


def is_plain(kernel: KernelChoice | TileKernel) -> bool:
    """Whether it is one that the library knows, by name or ready."""
    return isinstance(kernel, str | Kernel | KernelSum)


def name_of_wish(kernel: KernelChoice | TileKernel) -> str:
    """What a result calls the kernel."""
    return name_of(kernel) if is_plain(kernel) else kernel.name  # type: ignore[arg-type, union-attr, return-value]


def bandwidth_of_chosen(kernel: TileKernel) -> float | tuple[float | None, ...] | None:
    """What a result says of its bandwidth: of a kernel of a kind of its own, nothing."""
    return bandwidth_of(kernel.kernel) if isinstance(kernel, PlainKernel | HalfKernel) else None


def check_precision(precision: str) -> None:
    """Refuse a precision that there is not."""
    if precision not in PRECISIONS:
        raise InputError(f"precision: no precision {precision!r}; there are {', '.join(PRECISIONS)}")


def kernel_of_tables(wish: KernelWish, tables: Sequence[FeatureTable], some: np.ndarray, count: int) -> ChosenKernel:
    """What a test of `count` rows takes, some of which, in random order, are `some`; it reads all rows twice.

    Raises:
        InputError: rows that are not finite; a precision that the kernel or its rows cannot have.
    """
    mean = mean_of(tables)
    if not is_plain(wish.kernel):
        if wish.precision != "float32":
            raise InputError("precision: the kernel that was given has its own; leave it out")
        return ChosenKernel(wish.kernel, None)  # type: ignore[arg-type]
    named: KernelChoice = wish.kernel  # type: ignore[assignment]
    centre = mean if translation_invariant(named) else None
    points = Points(tables, centre).rows(some)
    chosen = choose_kernel(named, wish.bandwidth, points)
    manhattan = any(term.family.geometry == "manhattan" for term in chosen.terms)
    extent = extent_of_tables(tables, centre, manhattan=manhattan)
    plain = PlainKernel(chosen, row_form(count, points.shape[1], extent, chosen))
    return ChosenKernel(half_kernel(plain, points) if wish.precision == "bf16" else plain, centre)
