"""The bins null: which bins of points are X is drawn at random.

Every bin holds equally many points of one sample, so that bins are exchangeable under P = Q and the level is exact.
All that permutations need is the matrix of kernel sums within and between bins: each kernel value is computed once
and used once, and permutations are nearly free.
"""

from collections.abc import Sequence
from math import comb
from typing import NamedTuple

import numpy as np
import torch

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample import statistics
from gebm.evaluation.two_sample.compositions import StatisticName
from gebm.evaluation.two_sample.kernels import AnyKernel
from gebm.evaluation.two_sample.nulls.null_sample import NullSample, rounding_of_mean
from gebm.evaluation.two_sample.nulls.permutation import random_labels
from gebm.evaluation.two_sample.samples import Rows
from gebm.evaluation.two_sample.shuffles import Bins
from gebm.evaluation.two_sample.tiles import TILE_ROWS, LabelledSums, kernel_diagonal, kernel_tiles

DEFAULT_BINS = 256  # labellings of so many bins are almost as many as of all points
LABELLINGS_PER_LEVEL = 10  # different labellings of the bins for each one that may reject


def points_per_bin(n: int, m: int, bins: int | None) -> int:
    """Points in a bin, so that there are about `bins` bins, and no fewer.

    Where n and m are not both multiples of it, the points of the last bin of each sample are left out.
    """
    return max(1, (n + m) // (bins or DEFAULT_BINS))


def check_bins(n: int, m: int, size: int, level: float) -> None:
    """Refuse bins that are too few for the level.

    Raises:
        InputError: says how many there are and how many labellings.
    """
    of_x, of_y = n // size, m // size
    labellings = comb(of_x + of_y, of_x) // (2 if of_x == of_y else 1) if of_x and of_y else 0
    if labellings < LABELLINGS_PER_LEVEL / level:
        raise InputError(
            f"bins: {of_x} bins of x and {of_y} of y have {labellings} different labellings, too few for level "
            f"{level}: take more bins, or null='permutation'"
        )


class BinSums(NamedTuple):
    """Sums of the kernel over pairs of different points, for `s` bins.

    Attributes:
        matrix: `(s, s)` float64, symmetric.
        magnitude: about `Σ |k|`, the scale of rounding errors.
        squares: `Σ k²`.
    """

    matrix: torch.Tensor
    magnitude: float
    squares: float


def bin_sums(rows: Rows, size: int, kernels: Sequence[AnyKernel]) -> list[BinSums]:
    """Sums within and between bins of `size` consecutive rows, of every kernel, in one pass over the upper tiles."""
    bins, device = len(rows.points) // size, rows.points.device
    matrices = torch.zeros(len(kernels), bins, bins, dtype=torch.float64, device=device)
    magnitude, squares = (torch.zeros(len(kernels), dtype=torch.float64, device=device) for _ in range(2))
    blocks = blocks_of_bins(bins, size)
    for i, rows_i in enumerate(blocks):
        for rows_j in blocks[i:]:
            diagonal = rows_i == rows_j
            weight = 1.0 if diagonal else 2.0
            for index, tile in enumerate(kernel_tiles(rows.take(rows_i.rows), rows.take(rows_j.rows), kernels)):
                if diagonal:
                    tile.fill_diagonal_(0.0)
                squares[index] += weight * torch.linalg.vector_norm(tile, dim=1).to(torch.float64).square().sum()
                by_column_bin = tile.view(len(tile), rows_j.bins, -1).sum(2).to(torch.float64)
                sums = by_column_bin.view(rows_i.bins, -1, rows_j.bins).sum(1)
                magnitude[index] += weight * by_column_bin.abs().sum()
                matrices[index, rows_i.span, rows_j.span] += sums
                if not diagonal:
                    matrices[index, rows_j.span, rows_i.span] += sums.T
    each = zip(matrices, magnitude.tolist(), squares.tolist(), strict=True)
    return [BinSums(*sums) for sums in each]


class BinBlock(NamedTuple):
    """Consecutive rows that are whole bins, or a part of one."""

    rows: slice
    first: int
    bins: int

    @property
    def span(self) -> slice:
        return slice(self.first, self.first + self.bins)


def blocks_of_bins(bins: int, size: int, tile_rows: int = TILE_ROWS) -> list[BinBlock]:
    """The rows of all bins in blocks of at most `tile_rows`, in order."""
    if size <= tile_rows:
        step = tile_rows // size
        starts = range(0, bins, step)
        counts = [min(step, bins - first) for first in starts]
        return [BinBlock(slice(b * size, (b + c) * size), b, c) for b, c in zip(starts, counts, strict=True)]
    return [
        BinBlock(slice(start, min(start + tile_rows, (b + 1) * size)), b, 1)
        for b in range(bins)
        for start in range(b * size, (b + 1) * size, tile_rows)
    ]


def labelled_bin_sums(sums: BinSums, labels: torch.Tensor) -> LabelledSums:
    """The sums of `tiles.labelled_sums` for labellings `(P, s)` of bins."""
    weights = labels.to(sums.matrix)
    within = ((weights @ sums.matrix) * weights).sum(1)
    touching = weights @ sums.matrix.sum(1)
    return LabelledSums(within, touching, float(sums.matrix.sum()), sums.magnitude, sums.squares)


def bins_null(bins: Bins, statistic: StatisticName, permutations: int, rng: np.random.Generator) -> NullSample:
    """The statistic, `unbiased` or `biased`, of the true labelling of bins and of `permutations` random ones."""
    rows, kernel, size = bins.rows, bins.kernel, bins.size
    labels, position = random_labels(bins.is_x, permutations, rng)
    labels = labels.to(rows.points.device)
    total = len(rows.points)
    n = int(bins.is_x.sum()) * size
    sums = labelled_bin_sums(bin_sums(rows, size, [kernel])[0], labels)
    if statistic == "biased":
        diagonal = kernel_diagonal(rows, kernel).view(-1, size).sum(1)
        own = labels.to(torch.float64) @ diagonal
        values = statistics.biased(sums, own, float(diagonal.sum()), n, total - n)
    else:
        values = statistics.unbiased(sums, n, total - n)
    rounding = rounding_of_mean(sums.magnitude / (total * (total - 1)), total, rows.precision)
    return NullSample.around(values, position, rounding)
