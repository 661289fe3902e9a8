"""Collections of kernels for aggregated tests: Gaussian and Laplace at many bandwidths, from pooled distances."""

from math import sqrt

import torch

from gebm.evaluation.two_sample.bandwidth import LARGEST_SUBSAMPLE
from gebm.evaluation.two_sample.kernels import Kernel

SMALL_DISTANCE = 0.1  # MMDAgg: a smallest distance below this may be that of near duplicates
FALLBACK = 1.0  # where all points are equal, and every bandwidth gives the same answer


def mmdagg_kernels(pooled: torch.Tensor, bandwidths: int) -> list[Kernel]:
    """`exp(-D²/lambda²)` and Laplace `exp(-D₁/lambda)`, each at `bandwidths` lambdas, geometric from half the
    smallest to twice the largest distance in the kernel's own norm.

    Where the smallest is below 0.1, the 5% quantile takes its place; where that is zero, the smallest that is not.

    Args:
        pooled: `(N, d)` in random order; distances are those of the first 1,000 rows.
        bandwidths: for each of the two.
    """
    kernels = []
    for name, scale in (("gaussian", 1.0 / sqrt(2.0)), ("laplace", 1.0)):
        ordered = _distances(pooled, name)
        smallest = float(ordered[0])
        if smallest < SMALL_DISTANCE:
            smallest = float(torch.quantile(ordered, 0.05)) or _smallest_positive(ordered)
        largest = float(ordered[-1]) or FALLBACK
        lambdas = torch.logspace(*_logarithms(smallest / 2, largest * 2), bandwidths, dtype=torch.float64)
        kernels += [Kernel(name, scale * width, pooled.shape[1]) for width in lambdas.tolist()]
    return kernels


def fuse_kernels(pooled: torch.Tensor, bandwidths: int) -> list[Kernel]:
    """`exp(-D²/(2 lambda²))` and Laplace `exp(-√2 D₁/lambda)`, each at `bandwidths` lambdas, evenly spaced from half
    the 5% to twice the 95% quantile of the distances in the kernel's own norm. Arguments as for `mmdagg_kernels`."""
    kernels = []
    for name, scale in (("gaussian", 1.0), ("laplace", 1.0 / sqrt(2.0))):
        ordered = _distances(pooled, name)
        low, high = torch.quantile(ordered, torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
        low, high = low or _smallest_positive(ordered), high or float(ordered[-1]) or FALLBACK
        lambdas = torch.linspace(low / 2, high * 2, bandwidths, dtype=torch.float64)
        kernels += [Kernel(name, scale * width, pooled.shape[1]) for width in lambdas.tolist()]
    return kernels


def _distances(pooled: torch.Tensor, name: str) -> torch.Tensor:
    """Distances of pairs of the first rows, ascending, float64 on the CPU."""
    points = pooled[:LARGEST_SUBSAMPLE].to(torch.float64)
    return torch.pdist(points, p=1.0 if name == "laplace" else 2.0).cpu().sort().values


def _smallest_positive(ordered: torch.Tensor) -> float:
    positive = ordered[ordered > 0]
    return float(positive[0]) if len(positive) else FALLBACK


def _logarithms(low: float, high: float) -> tuple[float, float]:
    low, high = torch.tensor([low, high], dtype=torch.float64).log10().tolist()
    return low, high
