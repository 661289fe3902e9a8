"""MMD²_u of every labelling under every kernel of a collection, distances shared between the kernels."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from gebm.evaluation.two_sample import statistics
from gebm.evaluation.two_sample.kernels import Kernel
from gebm.evaluation.two_sample.nulls.bins import bin_sums, labelled_bin_sums
from gebm.evaluation.two_sample.nulls.null_sample import rounding_of_mean
from gebm.evaluation.two_sample.nulls.permutation import random_labels
from gebm.evaluation.two_sample.samples import pool, prepare_rows
from gebm.evaluation.two_sample.shuffles import order_of_bins
from gebm.evaluation.two_sample.tiles import LabelledSums, labelled_sums_of_each

Collect = Callable[[torch.Tensor, int], list[Kernel]]
"""From pooled rows in random order, and a number of bandwidths, to translation-invariant kernels."""


class KernelValues(NamedTuple):
    """MMD²_u of every labelling under every kernel.

    Attributes:
        kernels: the K kernels.
        mmd: `(K, P + 1)` float64, on the CPU like all else.
        rounding: `(K,)`, differences below which are ties.
        squares: `(K,)`, `Σ_{i≠j} k(z_i, z_j)²` over all pooled points.
        position: of the true labelling.
        n: points of X used.
        m: points of Y used.
        bins: how many, where there are bins.
    """

    kernels: list[Kernel]
    mmd: torch.Tensor
    rounding: torch.Tensor
    squares: torch.Tensor
    position: int
    n: int
    m: int
    bins: int | None = None


def values_of_permutations(
    x: torch.Tensor, y: torch.Tensor, collect: Collect, bandwidths: int, permutations: int, rng: np.random.Generator
) -> KernelValues:
    """For labellings of all points: each kernel's values go through one product with all labellings."""
    order = torch.from_numpy(rng.permutation(len(x) + len(y)))
    pooled = pool([x, y], order, kernel_centres=True)
    kernels = collect(pooled, bandwidths)
    rows = prepare_rows(pooled, *kernels)
    labels, position = random_labels(order < len(x), permutations, rng)
    sums = labelled_sums_of_each(rows, kernels, labels.to(rows.points.device))
    return _of_sums(kernels, sums, position, (len(x), len(y)), rows.precision)


def values_of_bins(
    x: torch.Tensor,
    y: torch.Tensor,
    size: int,
    collect: Collect,
    bandwidths: int,
    permutations: int,
    rng: np.random.Generator,
) -> KernelValues:
    """For labellings of bins of `size` points: each kernel's values are summed once."""
    order, is_x = order_of_bins(len(x), len(y), size, rng)
    pooled = pool([x, y], order, kernel_centres=True)
    mixed = torch.from_numpy(rng.permutation(len(pooled))).to(pooled.device)
    kernels = collect(pooled[mixed], bandwidths)
    rows = prepare_rows(pooled, *kernels)
    labels, position = random_labels(is_x, permutations, rng)
    labels = labels.to(rows.points.device)
    sums = [labelled_bin_sums(each, labels) for each in bin_sums(rows, size, kernels)]
    n = int(is_x.sum()) * size
    return _of_sums(kernels, sums, position, (n, len(pooled) - n), rows.precision)._replace(bins=len(is_x))


def _of_sums(
    kernels: list[Kernel], sums: Sequence[LabelledSums], position: int, sizes: tuple[int, int], precision: torch.dtype
) -> KernelValues:
    n, m = sizes
    total = n + m
    rounding = [rounding_of_mean(each.magnitude / (total * (total - 1)), total, precision) for each in sums]
    return KernelValues(
        kernels=kernels,
        mmd=torch.stack([statistics.unbiased(each, n, m) for each in sums]).cpu(),
        rounding=torch.tensor(rounding, dtype=torch.float64),
        squares=torch.tensor([each.squares for each in sums], dtype=torch.float64),
        position=position,
        n=n,
        m=m,
    )
