"""The asymptotic null of a statistic of all pairs, from the eigenvalues of the kernel (Gretton et al., JMLR 2012).

`(nm/N) MMD²_u -> Σ_l lambda_l (w_l² - 1)` and, for the V-statistic, `-> Σ_l lambda_l w_l²`, with `w_l ~ N(0, 1)` and
`lambda_l` the eigenvalues of `H K H / N`, `H = I - 11ᵀ/N`. Asymptotic: its level is not exact.
"""

from typing import NamedTuple

import numpy as np
import torch

from gebm.evaluation.two_sample import statistics, tiles
from gebm.evaluation.two_sample.compositions import StatisticName
from gebm.evaluation.two_sample.kernels import AnyKernel
from gebm.evaluation.two_sample.nulls.null_sample import NullSample, rounding_of_mean
from gebm.evaluation.two_sample.samples import Rows
from gebm.evaluation.two_sample.shuffles import Pairs, Pooled

LARGEST_SPECTRUM = 1000  # rows whose kernel matrix is diagonalised
DRAWS_AT_A_TIME = 2048


class Limit(NamedTuple):
    """Draws `(draws,)` of `Σ_l lambda_l w_l²`, and their mean, `Σ_l lambda_l`."""

    squares: torch.Tensor
    mean: float


def spectrum_null(pooled: Pooled, statistic: StatisticName, draws: int, rng: np.random.Generator) -> NullSample:
    """The statistic, `unbiased` or `biased`, among `draws` from its limit."""
    rows, kernel = pooled.rows, pooled.kernel
    total, n = len(pooled.is_x), int(pooled.is_x.sum())
    m = total - n
    sums = tiles.labelled_sums(rows, kernel, pooled.is_x.to(rows.points.device, torch.uint8)[None])
    rounding = rounding_of_mean(sums.magnitude / (total * (total - 1)), total, rows.precision)
    limit = draw_limit(eigenvalues(rows.take(slice(LARGEST_SPECTRUM)), kernel), draws, rng)
    scale = total / (n * m)
    if statistic == "biased":
        diagonal = tiles.kernel_diagonal(rows, kernel)
        own = diagonal[pooled.is_x.to(diagonal.device)].sum()[None]
        observed = statistics.biased(sums, own, float(diagonal.sum()), n, m)
        return NullSample(float(observed[0]), scale * limit.squares, rounding)
    return NullSample(float(statistics.unbiased(sums, n, m)[0]), scale * (limit.squares - limit.mean), rounding)


def paired_spectrum_null(pairs: Pairs, draws: int, rng: np.random.Generator) -> NullSample:
    """The paired statistic among `draws` from its limit, which is that of MMD²_u."""
    n = len(pairs.signs)
    sums = tiles.signed_sums(pairs.first, pairs.second, pairs.kernel, pairs.signs.to(pairs.first.points.device)[None])
    rounding = rounding_of_mean(sums.magnitude / (n * (n - 1)), n, pairs.first.precision)
    half = slice(LARGEST_SPECTRUM // 2)
    sides = pairs.first.take(half), pairs.second.take(half)
    both = sides[0]._replace(
        points=torch.cat([side.points for side in sides]),
        squared_norms=torch.cat([side.squared_norms for side in sides]),
    )
    limit = draw_limit(eigenvalues(both, pairs.kernel), draws, rng)
    return NullSample(float(statistics.paired(sums.forms, n)[0]), 2.0 / n * (limit.squares - limit.mean), rounding)


def eigenvalues(rows: Rows, kernel: AnyKernel) -> torch.Tensor:
    """Positive eigenvalues of `H K H / N` of N rows, float64, largest last.

    On a subsample they estimate those of the kernel's operator as the whole sample's would, with more noise.
    """
    matrix = tiles.kernel_tile(rows, rows, kernel).to(torch.float64)
    matrix.diagonal().copy_(tiles.kernel_diagonal(rows, kernel))
    matrix -= matrix.mean(0)
    matrix -= matrix.mean(1, keepdim=True)
    values = torch.linalg.eigvalsh(matrix).cpu() / len(matrix)
    return values[values > 1e-12 * values[-1].clamp(min=0.0)]


def draw_limit(values: torch.Tensor, draws: int, rng: np.random.Generator) -> Limit:
    """Draws of the limit with eigenvalues `values`."""
    parts = [
        torch.from_numpy(rng.chisquare(1.0, size=(min(DRAWS_AT_A_TIME, draws - start), len(values)))) @ values
        for start in range(0, draws, DRAWS_AT_A_TIME)
    ]
    return Limit(torch.cat(parts), float(values.sum()))
