"""What a distributed test asks of a kernel: that it makes blocks of rows ready, and computes tiles of them.

Any object that does so can be given instead of a kernel's name: a deep kernel runs its network in `prepare`, once for
each block of rows that an actor meets.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample.kernels import AnyKernel, name_of
from gebm.evaluation.two_sample.samples import RowForm, Rows
from gebm.evaluation.two_sample.tiles import kernel_diagonal, kernel_tile

HALF = torch.bfloat16


class TileKernel(Protocol):
    """A kernel as tiles see it. It must be picklable, and small: every actor gets a copy.

    Attributes:
        name: what results call it.
        precision: of the values in a tile, which decides what counts as a tie.
        products: the precision in which tiles are multiplied by labels and signs.
        shift: is taken off all values before that, where they would lose digits. No MMD² of equally large samples
            under all labellings changes by it.
    """

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> torch.dtype: ...

    @property
    def products(self) -> torch.dtype: ...

    @property
    def shift(self) -> float: ...

    def prepare(self, points: torch.Tensor) -> Any:
        """Rows `(n, d)` of pooled points, made ready once for all tiles that they are in."""

    def tile(self, a: Any, b: Any) -> torch.Tensor:
        """Values `(rows of a, rows of b)`, which the caller may overwrite."""

    def diagonal(self, rows: Any) -> torch.Tensor:
        """`k(z_i, z_i)`, `(n,)` float64."""

    def describe(self) -> dict[str, Any]:
        """JSON-able; two kernels that are described alike have the same values."""


@dataclass(frozen=True)
class RowKernel:
    """What kernels on rows have in common: a kernel of distances and inner products, or a sum of them, and the form
    that its rows need."""

    kernel: AnyKernel
    form: RowForm

    @property
    def name(self) -> str:
        return name_of(self.kernel)

    @property
    def precision(self) -> torch.dtype:
        return self.form.precision

    @property
    def products(self) -> torch.dtype:
        return self.form.precision

    @property
    def shift(self) -> float:
        return 0.0

    def tile(self, a: Rows, b: Rows) -> torch.Tensor:
        return kernel_tile(a, b, self.kernel)

    def diagonal(self, rows: Rows) -> torch.Tensor:
        return kernel_diagonal(rows, self.kernel)


@dataclass(frozen=True)
class PlainKernel(RowKernel):
    """The kernel on the points themselves."""

    def prepare(self, points: torch.Tensor) -> Rows:
        return self.form.rows(points)

    def describe(self) -> dict[str, Any]:
        form = {"dtype": str(self.form.dtype), "precision": str(self.form.precision), "by": self.form.by_differences}
        return {"terms": _terms(self.kernel), "form": form}


@dataclass(frozen=True)
class HalfKernel:
    """The same with inner products of points, and products with labels, in bfloat16; all else is float32.

    Points are rounded once. `shift`, near the mean value, is taken off before values are rounded: what is left of them
    is what differs between pairs. Rounding knows nothing of labels, so that an exact test stays exact.
    """

    kernel: AnyKernel
    shift: float

    @property
    def name(self) -> str:
        return name_of(self.kernel)

    @property
    def precision(self) -> torch.dtype:
        return torch.float32

    @property
    def products(self) -> torch.dtype:
        return HALF

    def prepare(self, points: torch.Tensor) -> Rows:
        rounded = points.to(HALF)
        squared = torch.linalg.vector_norm(rounded, dim=1, dtype=torch.float32).square_()
        return Rows(rounded, squared, torch.float32)

    def tile(self, a: Rows, b: Rows) -> torch.Tensor:
        inner = (a.points @ b.points.T).to(torch.float32)
        squared = inner.mul_(-2.0).add_(a.squared_norms[:, None]).add_(b.squared_norms).clamp_(min=0.0)
        total = None
        for index, term in enumerate(self.kernel.terms):
            last = index == len(self.kernel.terms) - 1
            values = term.values(squared if last else squared.clone())
            total = values if total is None else total.add_(values)
        assert total is not None
        return total

    def diagonal(self, rows: Rows) -> torch.Tensor:
        return kernel_diagonal(rows, self.kernel)

    def describe(self) -> dict[str, Any]:
        return {"terms": _terms(self.kernel), "form": "bf16", "shift": self.shift}


def half_kernel(plain: PlainKernel, some: torch.Tensor) -> HalfKernel:
    """The kernel in bfloat16, its shift the mean over pairs of `some` pooled rows.

    Raises:
        InputError: a kernel that bfloat16 would spoil.
    """
    terms = plain.kernel.terms
    if any(t.family.geometry != "squared_euclidean" or not t.family.bounded or t.tail is not None for t in terms):
        raise InputError(
            f"precision: bf16 is for bounded kernels of Euclidean distances, and {plain.name!r} is not one; take "
            f"float32, or the kernel gaussian, imq or rational_quadratic"
        )
    if plain.form.dtype != torch.float32:
        raise InputError(
            "precision: bf16 needs more than 1,024 points, and a bandwidth that is not small against their spread; "
            "take float32"
        )
    kernel = HalfKernel(plain.kernel, 0.0)
    rows = kernel.prepare(some)
    tile = kernel.tile(rows, rows).fill_diagonal_(0.0)
    return HalfKernel(plain.kernel, float(tile.sum(dtype=torch.float64)) / (len(some) * (len(some) - 1)))


def _terms(kernel: AnyKernel) -> list[list[Any]]:
    return [list(term) for term in kernel.terms]
